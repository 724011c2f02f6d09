"""Terms of the contrastive objective: debiased contrast, codeword regularizer, entropy.

Two variants of the contrastive loss exist, and are never mixed: `paper_contrastive_loss` is the
paper's equations; `official_contrastive_loss` is what the authors' released code computes, kept to
reproduce its logs. They agree on neither the pairing of anchors with negatives, nor the floor of
the debiased sum, nor the treatment of the memory.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def paper_contrastive_loss(
    view1: torch.Tensor,
    view2: torch.Tensor,
    memory: torch.Tensor | None = None,
    *,
    temperature: float,
    positive_prior: float,
) -> torch.Tensor:
    """The debiased contrastive loss with code memory, as in the MeCoQ paper (equations 6 to 9).

    With s the cosine similarity, T the temperature, rho the positive prior and, for each of the 2N
    anchors q, its other view k+, 2N-2 negatives in the batch and N_M in the memory:

        N_batch  = sum over the batch's negatives of [exp(s_qk/T) - rho exp(s_qk+/T)] / (1 - rho)
        N_memory = sum over the memory            of [exp(s_qi/T) - rho exp(s_qk+/T)] / (1 - rho)
        L = - mean_q log( exp(s_qk+/T) / (exp(s_qk+/T) + N_batch + N_memory) )

    Each of the two sums is bounded from below by (number of its negatives) * exp(-1/T), the least
    value that cosines allow, so that the estimate stays positive.

    Args:
        view1: Reconstructions of one view, shape (N, D); need not be normalized.
        view2: Reconstructions of the other view, shape (N, D), row i of the same item.
        memory: Decoded memory, shape (N_M, D), or None.
        temperature: T, above 0.
        positive_prior: rho+, in [0, 1); 0 gives the plain contrastive loss.

    Returns:
        A scalar, differentiable in all three inputs.
    """
    anchors = F.normalize(torch.cat([view1, view2]), dim=-1)  # (2N, D)
    n = len(view1)
    # exp((s - 1) / T) instead of exp(s / T): the common factor cancels in the ratio, and no
    # temperature can overflow.
    similarity = torch.exp((anchors @ anchors.T - 1) / temperature)  # (2N, 2N)
    positive_cosine = (anchors[:n] * anchors[n:]).sum(-1).repeat(2)  # (2N,)
    positive = torch.exp((positive_cosine - 1) / temperature)
    others = ~torch.eye(n, dtype=torch.bool, device=anchors.device).repeat(2, 2)
    negatives = _debiased_sum(
        torch.where(others, similarity, 0).sum(-1), positive, 2 * n - 2, temperature, positive_prior
    )
    if memory is not None and len(memory):
        stored = F.normalize(memory, dim=-1)
        total = torch.exp((anchors @ stored.T - 1) / temperature).sum(-1)
        negatives = negatives + _debiased_sum(
            total, positive, len(memory), temperature, positive_prior
        )
    return (torch.log(positive + negatives) - (positive_cosine - 1) / temperature).mean()


def _debiased_sum(
    total: torch.Tensor, positive: torch.Tensor, count: int, temperature: float, prior: float
) -> torch.Tensor:
    """Estimate of the sum over true negatives, all terms scaled by exp(-1/T)."""
    estimate = (total - prior * count * positive) / (1 - prior)
    return estimate.clamp(min=count * math.exp(-2 / temperature))


def official_contrastive_loss(
    view1: torch.Tensor,
    view2: torch.Tensor,
    memory: torch.Tensor | None = None,
    *,
    temperature: float,
    positive_prior: float,
) -> torch.Tensor:
    """The contrastive loss as the authors' released code computes it.

    It departs from `paper_contrastive_loss` in four points: the positive of every anchor is
    contrasted with the negative sum of *every* anchor (a mean over (2N, 2N) ratios); the memory is
    not normalized; it joins the batch's negatives while their count stays 2N-2, so it is only
    partly debiased; and the floor is exp(-(2N-2)/T), which is 0 in float32.

    Args:
        view1: Reconstructions of one view, shape (N, D); normalized here.
        view2: Reconstructions of the other view, shape (N, D), row i of the same item.
        memory: Decoded memory, shape (N_M, D), taken as it is, or None.
        temperature: T, above 0.
        positive_prior: rho+, in [0, 1).

    Returns:
        A scalar, differentiable in all three inputs.
    """
    anchors = F.normalize(torch.cat([view1, view2]), dim=-1)
    n = len(view1)
    similarity = torch.exp(anchors @ anchors.T / temperature)
    others = ~torch.eye(n, dtype=torch.bool, device=anchors.device).repeat(2, 2)
    total = torch.where(others, similarity, 0).sum(-1)  # (2N,)
    if memory is not None and len(memory):
        total = total + torch.exp(anchors @ memory.T / temperature).sum(-1)
    positive = torch.exp((anchors[:n] * anchors[n:]).sum(-1) / temperature).repeat(2)[:, None]
    count = 2 * n - 2
    estimate = (total[None, :] - positive_prior * count * positive) / (1 - positive_prior)
    negatives = estimate.clamp(min=math.exp(-count / temperature))  # (2N, 2N)
    return (torch.log(positive + negatives) - torch.log(positive)).mean()


def codeword_regularizer(codewords: torch.Tensor) -> torch.Tensor:
    """Omega_C, the mean inner product of all pairs of codewords (MeCoQ, equation 4).

    ``1/(M K^2) sum_m sum_i sum_j <c^m_i, c^m_j>``, computed as the mean over m of the squared
    length of the mean codeword, which is the same number without the K^2 products.

    Args:
        codewords: Unit codewords, shape (M, K, Ds).

    Returns:
        A scalar in [0, 1]: 1 if every codebook has collapsed to one codeword, 0 if each is
        balanced around the origin.
    """
    return codewords.mean(dim=1).square().sum(dim=-1).mean()


def soft_code_entropy(soft_codes: torch.Tensor) -> torch.Tensor:
    """Mean entropy of soft codes (n, M, K), in nats; a scalar in [0, log K]."""
    # A softmax can underflow to 0, where the derivative of p log p is infinite.
    logarithm = soft_codes.clamp_min(torch.finfo(soft_codes.dtype).tiny).log()
    return -(soft_codes * logarithm).sum(dim=-1).mean()
