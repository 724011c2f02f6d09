"""Codes that reproduce a float ranking: the order by cosine is the teacher, AQS the student.

For embeddings whose own similarity is what a user trusts (CLIP, DINO, sentence models). Nothing but
the vectors is needed. The network starts as product quantization of principal components and is
then fine-tuned by gradient, with hard codes in the forward pass, as in search.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..._arrays import Vectors
from ...errors import InvalidInputError
from ..config import TrainConfig
from ..model import MeCoQ
from ..quantizer import Quantized

TEACHER_TEMPERATURE = 0.05
_OFFSET = 2.0
_SAMPLE_PER_CODEWORD = 64
_LEAST_SAMPLE = 8192
_ITERATIONS = 10
_LENGTH_TOLERANCE = 0.01


class RankingDistillation(nn.Module):
    """Listwise distillation of the cosine into AQS.

    For the rows i, j of a batch, with x the vectors, z block-normalised embeddings and r decoded
    hard codes:

        P_i = softmax over j != i of <x_i, x_j> / 0.05
        Q_i = softmax over j != i of s <z_i, r_j>
        L   = mean over i of KL(P_i || Q_i)

    Codes are hard forward and soft backward (straight-through). The scale s is learned, from where
    `start_from_components` puts it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, x: torch.Tensor, z: torch.Tensor, reconstruction: torch.Tensor
    ) -> torch.Tensor:
        """The loss of a batch: unit vectors (B, P), block-normalised z and r (B, D); a scalar."""
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        teacher = (x @ x.T / TEACHER_TEMPERATURE).masked_fill(itself, -1e4).log_softmax(1)
        student = (self.log_scale.exp() * z @ reconstruction.T).masked_fill(itself, -1e4)
        return F.kl_div(student.log_softmax(1), teacher, reduction="batchmean", log_target=True)


def straight_through(quantized: Quantized, codewords: torch.Tensor) -> torch.Tensor:
    """Decoded hard codes (n, D), with the gradient of the soft ones."""
    soft = quantized.soft_codes
    hard = F.one_hot(quantized.logits.argmax(-1), soft.shape[-1]).to(soft)
    codes = soft + (hard - soft).detach()
    return torch.einsum("nmk,mkd->nmd", codes, codewords).flatten(1)


def check_unit_rows(x: Vectors) -> None:
    """Refuse vectors that are not of unit length: no projection can take the lengths out.

    Raises:
        InvalidInputError: If a length is off by more than 1 %.
    """
    lengths = np.sqrt(np.einsum("np,np->n", x, x))
    off = np.flatnonzero(np.abs(lengths - 1) > _LENGTH_TOLERANCE)
    if len(off):
        raise InvalidInputError(
            "distillation reproduces the cosine, so vectors must have length 1, items and queries "
            f"alike, but {len(off)} of {len(x)} rows have not, the first of them row {off[0]} of "
            f"length {lengths[off[0]]:.4g}. Divide each row by its length."
        )


@torch.no_grad()
def start_from_components(
    model: MeCoQ, distillation: RankingDistillation, x: Vectors, config: TrainConfig
) -> None:
    """Let the model begin as product quantization of principal components, and scale the student.

    A subvector gets Ds - 1 components and one constant coordinate b. At unit length,
    <z, c> = 1 - |z - c|^2 / 2, which is about 1 - |u - v|^2 / (2 b^2) for components u and v that
    are short beside b: the normalisation of subvectors then costs next to nothing. Components are
    dealt out so that the subvectors share the variance (OPQ's eigenvalue allocation).

    Args:
        model: Its projection (``linear`` or ``mlp``) and codewords are overwritten.
        distillation: Its scale is set so that scores of teacher and student spread alike.
        x: Unit vectors, float32, (n, P).
        config: The settings.

    Raises:
        InvalidInputError: If there are more codebooks than columns, or nothing to rank.
    """
    M, Ds = config.num_codebooks, config.dim // config.num_codebooks
    if x.shape[1] < M:
        raise InvalidInputError(
            f"num_codebooks must be at most the width of the vectors, {x.shape[1]}, got {M}."
        )
    rng = np.random.default_rng([config.seed, 2])
    mean = x.mean(axis=0, dtype=np.float64)
    rows = x[
        rng.permutation(len(x))[: max(_LEAST_SAMPLE, _SAMPLE_PER_CODEWORD * config.num_codewords)]
    ]
    centred = rows - mean
    variance, components = np.linalg.eigh(centred.T @ centred / len(rows))
    variance, components = variance[::-1], components[:, ::-1]
    W = np.zeros((M, Ds, x.shape[1]))
    for m, numbers in enumerate(_deal_out(variance, M, Ds - 1)):
        W[m, : len(numbers)] = components[:, numbers].T
    lengths = np.square(centred @ W.reshape(M * Ds, -1).T).sum(axis=1) / M
    W /= math.sqrt(lengths.mean()) or 1.0
    constant = np.zeros((M, Ds))
    constant[:, -1] = _OFFSET
    _set_projection(model.projection, W.reshape(M * Ds, -1), constant.ravel(), mean, components)
    z = F.normalize(model.embed(_like(model, rows)).view(-1, M, Ds), dim=-1)
    for m in range(M):
        model.quantizer.codewords[m] = _spherical_kmeans(z[:, m], config.num_codewords, rng)
    some = slice(0, 500)
    student = z[some].flatten(1) @ z[some].flatten(1).T
    teacher = _like(model, rows[some]) @ _like(model, rows[some]).T
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    spread = float(teacher[others].std() / student[others].std())
    if not (math.isfinite(spread) and spread > 0):
        raise InvalidInputError(
            "there is no ranking to distil: all vectors are equally alike, or there are fewer than "
            "3 of them."
        )
    distillation.log_scale.fill_(math.log(spread / TEACHER_TEMPERATURE))


def _like(model: MeCoQ, x: Vectors) -> torch.Tensor:
    device = next(model.projection.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)


def _deal_out(variance: np.ndarray, blocks: int, most: int) -> list[list[int]]:
    """Component numbers of each block: each goes where the product of variances is least so far."""
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
    """Make the projection W (x - mean) + constant."""
    linear = [layer for layer in projection if isinstance(layer, nn.Linear)]
    first, last = linear[0], linear[-1]
    if first is last:
        _assign(first, W, constant - W @ mean)
        return
    # relu(u) - relu(-u) = u: the hidden layer passes components through, with both signs
    pairs = min(first.out_features // 2, components.shape[1])
    passed = components[:, :pairs]
    hidden = first.weight.double().cpu().numpy()  # those left over stay at random
    hidden[: 2 * pairs] = np.concatenate([passed.T, -passed.T])
    output = np.zeros((len(W), first.out_features))
    output[:, : 2 * pairs] = np.concatenate([W @ passed, -W @ passed], axis=1)
    _assign(first, hidden, -hidden @ mean)
    _assign(last, output, constant)


def _assign(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))


def _spherical_kmeans(z: torch.Tensor, K: int, rng: np.random.Generator) -> torch.Tensor:
    """K unit vectors (K, Ds) around which unit vectors (n, Ds) lie; empty ones are drawn anew."""
    picked = rng.choice(len(z), K, replace=len(z) < K)
    codewords = z[picked].clone()
    for _ in range(_ITERATIONS):
        nearest = (z @ codewords.T).argmax(dim=1)
        total = torch.zeros_like(codewords).index_add_(0, nearest, z)
        empty = torch.bincount(nearest, minlength=K) == 0
        total[empty] = z[rng.choice(len(z), int(empty.sum()))]
        codewords = F.normalize(total, dim=1)
    return codewords
