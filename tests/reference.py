"""The paper's formulas as plain float64 loops. Slow on purpose; imports nothing of the package."""

from __future__ import annotations

import math

import numpy as np


def unit(x):
    """Rows scaled to unit length."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def soft_codes(z, codewords, alpha):
    """p^m_i, (n, M, K), one softmax at a time."""
    M, K, Ds = codewords.shape
    result = np.zeros((len(z), M, K))
    for i in range(len(z)):
        for m in range(M):
            sub = unit(z[i, m * Ds : (m + 1) * Ds])
            weights = [math.exp(alpha * float(sub @ unit(codewords[m, k]))) for k in range(K)]
            for k in range(K):
                result[i, m, k] = weights[k] / sum(weights)
    return result


def reconstruction(p, codewords):
    """zhat, (n, D): the unit codewords averaged by soft codes."""
    n, M, K = p.shape
    rows = []
    for i in range(n):
        parts = [sum(p[i, m, k] * unit(codewords[m, k]) for k in range(K)) for m in range(M)]
        rows.append(np.concatenate(parts))
    return np.array(rows)


def paper_contrastive(view1, view2, memory, temperature, prior):
    """Equations 6 to 9: each anchor against its own negatives, two debiased sums with floors."""
    z, memory = unit(np.concatenate([view1, view2])), unit(memory) if len(memory) else memory
    n, total = len(view1), 0.0
    for q in range(2 * n):
        k = (q + n) % (2 * n)  # the other view of q
        positive = math.exp(z[q] @ z[k] / temperature)
        negatives = 0.0
        batch = [math.exp(z[q] @ z[j] / temperature) for j in range(2 * n) if j not in (q, k)]
        stored = [math.exp(z[q] @ entry / temperature) for entry in memory]
        for terms in (batch, stored):
            if terms:
                estimate = sum(t - prior * positive for t in terms) / (1 - prior)
                negatives += max(estimate, len(terms) * math.exp(-1 / temperature))
        total -= math.log(positive / (positive + negatives))
    return total / (2 * n)


def official_contrastive(view1, view2, memory, temperature, prior):
    """The released code: every positive meets every anchor's negative sum."""
    z = unit(np.concatenate([view1, view2]))
    n = len(view1)
    count = 2 * n - 2
    positives, sums = [], []
    for q in range(2 * n):
        k = (q + n) % (2 * n)
        positives.append(math.exp(z[q] @ z[k] / temperature))
        batch = sum(math.exp(z[q] @ z[j] / temperature) for j in range(2 * n) if j not in (q, k))
        sums.append(batch + sum(math.exp(z[q] @ entry / temperature) for entry in memory))
    total = 0.0
    for positive in positives:
        for negative_sum in sums:
            estimate = (negative_sum - prior * count * positive) / (1 - prior)
            negatives = max(estimate, math.exp(count * (-1 / temperature)))
            total -= math.log(positive / (positive + negatives))
    return total / (2 * n) ** 2


def codeword_regularizer(codewords):
    """Omega_C over all pairs of unit codewords."""
    M, K, _ = codewords.shape
    total = 0.0
    for m in range(M):
        for i in range(K):
            for j in range(K):
                total += float(unit(codewords[m, i]) @ unit(codewords[m, j]))
    return total / (M * K * K)


def entropy(p):
    """Mean entropy of soft codes in nats."""
    n, M, K = p.shape
    total = 0.0
    for i in range(n):
        for m in range(M):
            for k in range(K):
                if p[i, m, k] > 0:
                    total -= p[i, m, k] * math.log(p[i, m, k])
    return total / (n * M)
