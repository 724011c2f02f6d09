"""AQS as loops over single numbers. Slow on purpose; imports nothing of the package."""

import numpy as np


def encode(z, codewords):
    """Index of the largest inner product, the lowest on a tie."""
    M, K, Ds = codewords.shape
    codes = np.zeros((len(z), M), np.uint8)
    for i in range(len(z)):
        for m in range(M):
            sub = z[i, m * Ds : (m + 1) * Ds].astype(np.float64)
            scores = [float(sub @ codewords[m, k].astype(np.float64)) for k in range(K)]
            codes[i, m] = scores.index(max(scores))
    return codes


def aqs(q, codes, codewords):
    """sum_m <q^m, c^m_code> / ||q^m||, subvectors of length zero adding nothing."""
    M, _, Ds = codewords.shape
    scores = np.zeros((len(q), len(codes)))
    for i in range(len(q)):
        for j in range(len(codes)):
            for m in range(M):
                sub = q[i, m * Ds : (m + 1) * Ds].astype(np.float64)
                length = np.sqrt((sub**2).sum())
                if length > 0:
                    scores[i, j] += sub @ codewords[m, codes[j, m]] / length
    return scores


def sqs(query_codes, codes, codewords):
    """sum_m <c^m_query, c^m_item>."""
    scores = np.zeros((len(query_codes), len(codes)))
    for i, query in enumerate(query_codes):
        for j, item in enumerate(codes):
            for m in range(codewords.shape[0]):
                scores[i, j] += codewords[m, query[m]] @ codewords[m, item[m]]
    return scores
