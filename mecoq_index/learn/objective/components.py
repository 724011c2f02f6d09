"""The starting point of distillation: product quantization of principal components."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..._arrays import Vectors
from ...errors import InvalidInputError
from .quantizer import Quantizer

_OFFSET = 2.0
_SAMPLE_PER_CODEWORD = 64
_LEAST_SAMPLE = 8192
_ITERATIONS = 10


@torch.no_grad()
def start_from_components(
    projection: nn.Sequential,
    quantizer: Quantizer,
    x: Vectors,
    *,
    seed: int,
    teacher_temperature: float,
) -> float:
    """Start projection and codewords as product quantization of principal components.

    A subvector gets Ds - 1 components and one constant coordinate b. At unit length,
    <z, c> = 1 - |z - c|^2 / 2, which is about 1 - |u - v|^2 / (2 b^2) for components u and v that
    are short beside b, so normalizing the subvectors changes little. Components are distributed so
    that the subvectors share the variance (OPQ's eigenvalue allocation).

    Args:
        projection: A linear layer, or two with ReLU between them; overwritten.
        quantizer: Its codewords (M, K, Ds) are overwritten.
        x: Unit vectors, float32, (n, P).
        seed: The seed of sample and k-means.
        teacher_temperature: The temperature of the teacher's softmax.

    Returns:
        The scale at which the student's scores have the same spread as the teacher's.

    Raises:
        InvalidInputError: If there are more codebooks than columns, or nothing to rank.
    """
    M, K, Ds = quantizer.codewords.shape
    if x.shape[1] < M:
        raise InvalidInputError(
            f"num_codebooks must be at most the width of the vectors, {x.shape[1]}, got {M}."
        )
    rng = np.random.default_rng([seed, 2])
    mean = x.mean(axis=0, dtype=np.float64)
    rows = x[rng.permutation(len(x))[: max(_LEAST_SAMPLE, _SAMPLE_PER_CODEWORD * K)]]
    centered = rows - mean
    variance, components = np.linalg.eigh(centered.T @ centered / len(rows))
    variance, components = variance[::-1], components[:, ::-1]
    W = np.zeros((M, Ds, x.shape[1]))
    for m, numbers in enumerate(_deal_out(variance, M, Ds - 1)):
        W[m, : len(numbers)] = components[:, numbers].T
    lengths = np.square(centered @ W.reshape(M * Ds, -1).T).sum(axis=1) / M
    W /= math.sqrt(lengths.mean()) or 1.0
    constant = np.zeros((M, Ds))
    constant[:, -1] = _OFFSET
    _set_projection(projection, W.reshape(M * Ds, -1), constant.ravel(), mean, components)
    z = F.normalize(projection(_like(projection, rows)).view(-1, M, Ds), dim=-1)
    for m in range(M):
        quantizer.codewords[m] = _spherical_kmeans(z[:, m], K, rng)
    some = slice(0, 500)
    student = z[some].flatten(1) @ z[some].flatten(1).T
    teacher = _like(projection, rows[some]) @ _like(projection, rows[some]).T
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    spread = float(teacher[others].std() / student[others].std())
    if not (math.isfinite(spread) and spread > 0):
        raise InvalidInputError(
            "there is no ranking to distil: all vectors are equally alike, or there are fewer than "
            "3 of them."
        )
    return spread / teacher_temperature


def _like(projection: nn.Sequential, x: Vectors) -> torch.Tensor:
    device = next(projection.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)


def _deal_out(variance: np.ndarray, blocks: int, most: int) -> list[list[int]]:
    """Assign each component to the block with the lowest product of variances so far."""
    dealt: list[list[int]] = [[] for _ in range(blocks)]
    logarithm = np.zeros(blocks)
    scale = variance[0] or 1.0
    for i in range(min(len(variance), blocks * most)):
        open_blocks = [m for m in range(blocks) if len(dealt[m]) < most]
        empty = [m for m in open_blocks if not dealt[m]]
        m = empty[0] if empty else min(open_blocks, key=lambda m: logarithm[m])
        dealt[m].append(i)
        logarithm[m] += math.log(max(variance[i] / scale, 1e-12)) + math.log(1e4)
    return dealt


def _set_projection(
    projection: nn.Sequential,
    W: np.ndarray,
    constant: np.ndarray,
    mean: np.ndarray,
    components: np.ndarray,
) -> None:
    """Overwrite the projection with W (x - mean) + constant."""
    linear = [layer for layer in projection if isinstance(layer, nn.Linear)]
    first, last = linear[0], linear[-1]
    if first is last:
        _assign(first, W, constant - W @ mean)
        return
    # The hidden layer passes components through with both signs: relu(u) - relu(-u) = u.
    pairs = min(first.out_features // 2, components.shape[1])
    passed = components[:, :pairs]
    hidden = first.weight.double().cpu().numpy()  # the other rows stay random
    hidden[: 2 * pairs] = np.concatenate([passed.T, -passed.T])
    output = np.zeros((len(W), first.out_features))
    output[:, : 2 * pairs] = np.concatenate([W @ passed, -W @ passed], axis=1)
    _assign(first, hidden, -hidden @ mean)
    _assign(last, output, constant)


def _assign(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))


def _spherical_kmeans(z: torch.Tensor, K: int, rng: np.random.Generator) -> torch.Tensor:
    """Cluster unit vectors (n, Ds) around K unit codewords (K, Ds); redraw empty ones."""
    picked = rng.choice(len(z), K, replace=len(z) < K)
    codewords = z[picked].clone()
    for _ in range(_ITERATIONS):
        nearest = (z @ codewords.T).argmax(dim=1)
        total = torch.zeros_like(codewords).index_add_(0, nearest, z)
        empty = torch.bincount(nearest, minlength=K) == 0
        total[empty] = z[rng.choice(len(z), int(empty.sum()))]
        codewords = F.normalize(total, dim=1)
    return codewords
