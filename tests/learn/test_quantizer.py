import numpy as np
import pytest
import reference
import torch

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.learn.objective.quantizer import SignQuantizer, SoftQuantizer

SHAPES = [(1, 2, 3), (4, 16, 2), (3, 7, 5)]


def _quantizer(M, K, Ds, **options):
    torch.manual_seed(0)
    return SoftQuantizer(M, K, Ds, alpha=options.pop("alpha", 10.0), **options).double()


@pytest.mark.parametrize("M,K,Ds", SHAPES)
@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_soft_codes_and_reconstruction_match_the_formula(M, K, Ds, alpha):
    quantizer = _quantizer(M, K, Ds, alpha=alpha)
    z = np.random.default_rng(1).standard_normal((6, M * Ds))
    got = quantizer(torch.from_numpy(z))
    codewords = quantizer.codewords.detach().numpy()
    p = reference.soft_codes(z, codewords, alpha)
    np.testing.assert_allclose(got.soft_codes.detach(), p, rtol=1e-9)
    np.testing.assert_allclose(got.soft_codes.detach().sum(-1), 1, rtol=1e-12)
    zhat = reference.reconstruction(p, codewords)
    np.testing.assert_allclose(got.reconstruction.detach(), zhat, atol=1e-12)
    np.testing.assert_allclose(quantizer.decode(torch.from_numpy(p)).detach(), zhat, atol=1e-12)


def test_gradients_are_those_of_the_formula():
    quantizer = _quantizer(2, 3, 2)
    z = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def outputs(z, codewords):
        result = torch.func.functional_call(quantizer, {"codewords": codewords}, (z,))
        return result.soft_codes, result.reconstruction

    assert torch.autograd.gradcheck(outputs, (z, quantizer.codewords))


def test_the_length_of_a_subvector_or_codeword_does_not_matter():
    quantizer = _quantizer(2, 5, 3)
    z = torch.randn(4, 6, dtype=torch.float64)
    want = quantizer(z).reconstruction
    scaled = z * torch.tensor([3.0] * 3 + [0.01] * 3)
    torch.testing.assert_close(quantizer(scaled).reconstruction, want)
    with torch.no_grad():
        quantizer.codewords.mul_(7)
    torch.testing.assert_close(quantizer(z).reconstruction, want)


def test_renormalize_changes_lengths_but_not_directions():
    quantizer = _quantizer(2, 5, 3)
    before = quantizer.unit_codewords().detach().clone()
    with torch.no_grad():
        quantizer.codewords.mul_(torch.rand(2, 5, 1, dtype=torch.float64) + 0.5)
    quantizer.renormalize()
    torch.testing.assert_close(quantizer.codewords.detach(), before)


def test_a_sharp_soft_code_is_the_hard_code_of_the_algebra():
    M, K, Ds = 4, 16, 4
    quantizer = _quantizer(M, K, Ds, alpha=1e4).float()
    z = np.random.default_rng(2).standard_normal((50, M * Ds), dtype=np.float32)
    books = Codebooks(quantizer.unit_codewords().detach().numpy())
    codes = scoring.encode(z, books)
    quantized = quantizer(torch.from_numpy(z))
    np.testing.assert_array_equal(quantized.soft_codes.argmax(-1), codes)
    np.testing.assert_array_equal(quantized.logits.argmax(-1), codes)


def test_frozen_codebooks_take_no_gradient():
    quantizer = _quantizer(2, 3, 2, learned=False)
    z = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    quantizer(z).reconstruction.square().sum().backward()
    assert quantizer.codewords.grad is None
    assert z.grad is not None


def test_signs_are_hard_forward_and_a_tanh_backward():
    quantizer = SignQuantizer(4, alpha=2.0).double()
    z = torch.tensor([[0.3, -0.1, 2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    got = quantizer(z)
    np.testing.assert_array_equal(got.reconstruction.detach(), [[1, -1, 1, -1]])
    np.testing.assert_array_equal(quantizer.decode(got.soft_codes).detach(), [[1, -1, 1, -1]])
    gradient = torch.autograd.grad(got.reconstruction.sum(), z)[0]
    np.testing.assert_allclose(gradient, 2 * (1 - np.tanh(2 * z.detach().numpy()) ** 2))
    np.testing.assert_allclose(
        got.soft_codes.detach()[..., 1] - got.soft_codes.detach()[..., 0],
        np.tanh(2 * z.detach().numpy()),
    )


def test_aqs_over_signs_counts_equal_bits():
    codewords = SignQuantizer(8, alpha=1.0).unit_codewords().numpy()
    books = Codebooks(codewords)
    z = np.random.default_rng(0).standard_normal((30, 8), dtype=np.float32)
    codes = scoring.encode(z, books)
    np.testing.assert_array_equal(codes, z > 0)
    equal = (codes[:5, None] == codes[None]).sum(-1)
    np.testing.assert_allclose(scoring.aqs(z[:5], codes, books), 2.0 * equal - 8, atol=1e-5)
