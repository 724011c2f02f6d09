"""Statistics of an epoch: means of the loss terms, and the health of the codes."""

from __future__ import annotations

import torch

from .objective.losses import soft_code_entropy
from .objective.quantizer import Quantized

_SAMPLES_AN_EPOCH = 64


class EpochStatistics:
    """Running means over one epoch, kept on the device until they are asked for.

    Usage, entropy and quantization error look at every soft code, so they are taken at about 64
    evenly spread steps of an epoch; the loss terms at all of them.

    Args:
        steps: Steps of the epoch.
        alpha: Sharpness of the quantizer, which its logits carry; None where they are not products
            of unit vectors, and there is no quantization error to speak of.
        device: Where the sums are kept.
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
        """Take in one step."""
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
        """The loss terms, averaged over the steps so far."""
        return {
            name: float(total) / self._steps
            for name, total in self._sums.items()
            if not name.startswith("_")
        }

    def codes(self) -> dict[str, float]:
        """The health of the codes.

        ``codeword_usage``: fraction of codewords that some item was assigned to;
        ``codeword_perplexity``: exp of the entropy of the assignments, mean over subquantizers,
        at most K; ``soft_code_entropy``: mean entropy of the soft codes, nats;
        ``quantization_error``: mean squared distance of block-normalised embeddings to their
        decoded codes, in [0, 4 M]; not for signs.
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
