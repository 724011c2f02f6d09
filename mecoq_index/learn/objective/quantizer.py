"""Trainable quantizers: soft assignment to unit codewords (MeCoQ, section 3.2), and signs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Quantized(NamedTuple):
    """Quantized embeddings.

    Attributes:
        soft_codes: p, shape (n, M, K), every row of K sums to 1.
        reconstruction: zhat, shape (n, D), the codewords averaged by p.
        logits: alpha <z^m, c^m_i> of unit vectors, shape (n, M, K); p is their softmax.
    """

    soft_codes: torch.Tensor
    reconstruction: torch.Tensor
    logits: torch.Tensor


class SoftQuantizer(nn.Module):
    """M codebooks of K unit codewords, to which embeddings are softly assigned.

    With z^m and c^m_i scaled to unit length:

        p^m_i  = softmax_i(alpha <z^m, c^m_i>)
        zhat^m = sum_i p^m_i c^m_i

    Args:
        num_codebooks: M.
        num_codewords: K.
        subvector_width: Ds; embeddings have D = M * Ds columns.
        alpha: Sharpness of the softmax.
        learned: Whether the codewords are trained; otherwise they stay at their random initial
            values, uniform on the sphere.
    """

    def __init__(
        self,
        num_codebooks: int,
        num_codewords: int,
        subvector_width: int,
        *,
        alpha: float,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        initial = F.normalize(torch.randn(num_codebooks, num_codewords, subvector_width), dim=-1)
        self.codewords = nn.Parameter(initial, requires_grad=learned)

    @property
    def logit_scale(self) -> float | None:
        """alpha, the factor of the products of unit vectors in the logits."""
        return self.alpha

    def unit_codewords(self) -> torch.Tensor:
        """Return the codewords scaled to unit length, (M, K, Ds), differentiable."""
        return F.normalize(self.codewords, dim=-1)

    def forward(self, z: torch.Tensor) -> Quantized:
        """Quantize embeddings (n, D) softly; the lengths of their subvectors do not matter."""
        codewords = self.unit_codewords()
        M, _, Ds = codewords.shape
        sub = F.normalize(z.view(len(z), M, Ds), dim=-1).transpose(0, 1)  # (M, n, Ds)
        # Scaling the Ds columns of the embeddings is cheaper than scaling K columns of logits.
        logits = torch.bmm(self.alpha * sub, codewords.transpose(1, 2))  # (M, n, K)
        soft_codes = torch.softmax(logits, dim=-1)
        reconstruction = torch.bmm(soft_codes, codewords)  # (M, n, Ds)
        return Quantized(
            soft_codes.transpose(0, 1),
            reconstruction.transpose(0, 1).reshape(len(z), M * Ds),
            logits.transpose(0, 1),
        )

    def decode(self, soft_codes: torch.Tensor) -> torch.Tensor:
        """Decode soft codes (n, M, K) to reconstructions (n, D) by the current codebooks."""
        decoded = torch.bmm(soft_codes.transpose(0, 1), self.unit_codewords())  # (M, n, Ds)
        return decoded.transpose(0, 1).flatten(1)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Scale the stored codewords to unit length.

        A gradient through `unit_codewords` is orthogonal to the codeword, so every step makes the
        codeword longer, and a longer codeword turns more slowly. Without this, the effective
        learning rate of the codebooks would decrease.
        """
        self.codewords.copy_(self.unit_codewords())


class SignQuantizer(nn.Module):
    """Binary codes: the sign of each coordinate, with a straight-through gradient.

    Learned binary hashing is a special case of the quantizer, so the same loop trains both kinds of
    codes: M = bits codebooks of the two codewords -1 and +1, with Ds = 1. Unlike in
    `SoftQuantizer`, coordinates are not normalized, since only their sign would remain:

        p_m    = softmax(-alpha z_m, alpha z_m), so that p_m . (-1, 1) = tanh(alpha z_m)
        zhat_m = sign(z_m), with the gradient of tanh(alpha z_m)

    AQS between such codes is the number of equal bits minus that of different ones, so it ranks as
    Hamming distance does.

    Args:
        num_bits: The bits of a code, and D.
        alpha: Sharpness of the tanh.
    """

    codewords: torch.Tensor

    def __init__(self, num_bits: int, *, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("codewords", torch.tensor([-1.0, 1.0]).repeat(num_bits, 1)[..., None])

    @property
    def logit_scale(self) -> float | None:
        """None, because logits of unnormalized coordinates are no products of unit vectors."""
        return None

    def unit_codewords(self) -> torch.Tensor:
        """Return -1 and +1 for every bit, (bits, 2, 1)."""
        return self.codewords

    def forward(self, z: torch.Tensor) -> Quantized:
        """Quantize embeddings (n, bits) to -1 and +1."""
        logits = torch.stack([-self.alpha * z, self.alpha * z], dim=-1)  # (n, bits, 2)
        soft = torch.tanh(self.alpha * z)
        signs = torch.where(z > 0, 1.0, -1.0)
        return Quantized(logits.softmax(-1), soft + (signs - soft).detach(), logits)

    def decode(self, soft_codes: torch.Tensor) -> torch.Tensor:
        """Return the signs (n, bits) of soft codes (n, bits, 2)."""
        return torch.where(soft_codes[..., 1] > 0.5, 1.0, -1.0)

    def renormalize(self) -> None:
        """Do nothing, since the codewords are not trained."""


Quantizer = SoftQuantizer | SignQuantizer
