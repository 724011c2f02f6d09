"""Statistics of an epoch: means of the loss terms, and the health of the codes."""

from __future__ import annotations

import torch

from .objective.losses import soft_code_entropy
from .objective.quantizer import Quantized

_SAMPLES_AN_EPOCH = 64


class EpochStatistics:
    """Running means over one epoch, kept on the device until they are read.

    Loss terms are averaged over all steps. Usage, entropy and quantization error need a pass over
    every soft code, so they are measured at about 64 evenly spaced steps.

    Args:
        steps: The number of steps in the epoch.
        alpha: The sharpness of the quantizer, a factor of its logits; None if the logits are not
            products of unit vectors, and no quantization error is defined.
        device: The device that holds the sums.
    """

    def __init__(self, steps: int, alpha: float | None, device: torch.device) -> None:
        self._alpha = alpha
        self.stride = max(1, steps // _SAMPLES_AN_EPOCH)
        self._device = device
        self._steps = 0
        self._sampled = 0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, terms: dict[str, torch.Tensor], quantized: Quantized) -> None:
        """Add one step."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        if self._steps % self.stride == 0:
            self._sample(quantized)
        self._steps += 1

    def _sample(self, quantized: Quantized) -> None:
        best, codes = quantized.logits.max(dim=-1)  # (n, M)
        _, M, K = quantized.logits.shape
        if self._counts is None:
            self._counts = torch.zeros(M, K, device=self._device)
        self._counts.scatter_add_(1, codes.T, torch.ones_like(codes.T, dtype=torch.float32))
        sampled = {"_entropy": soft_code_entropy(quantized.soft_codes)}
        if self._alpha is not None:
            # ||z^m - c||^2 = 2 - 2 <z^m, c> for unit vectors, summed over the M subvectors
            sampled["_error"] = (2 - 2 * best / self._alpha).sum(dim=1).mean()
        for name, value in sampled.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._sampled += 1

    def means(self) -> dict[str, float]:
        """Return the loss terms, averaged over the steps so far."""
        return {
            name: float(total) / self._steps
            for name, total in self._sums.items()
            if not name.startswith("_")
        }

    def codes(self) -> dict[str, float]:
        """Return measures of the health of the codes, by name.

        - ``codeword_usage``: the fraction of codewords that are assigned to some item;
        - ``codeword_perplexity``: exp of the entropy of the assignments, at most K; the mean over
          subquantizers;
        - ``soft_code_entropy``: the mean entropy of the soft codes in nats;
        - ``quantization_error``: the mean squared distance between block-normalized embeddings
          and their decoded codes, in [0, 4 M]; absent if ``alpha`` is None.
        """
        if self._counts is None:
            return {}
        share = self._counts / self._counts.sum(dim=1, keepdim=True)
        entropy = -(share * share.clamp_min(1e-12).log()).sum(dim=1)
        health = {
            "codeword_usage": float((self._counts > 0).float().mean()),
            "codeword_perplexity": float(entropy.exp().mean()),
            "soft_code_entropy": float(self._sums["_entropy"]) / self._sampled,
        }
        if self._alpha is not None:
            health["quantization_error"] = float(self._sums["_error"]) / self._sampled
        return health
