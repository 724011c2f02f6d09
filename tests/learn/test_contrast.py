import math

import numpy as np
import pytest
import reference
import torch

from mecoq_index.learn.objective.losses import (
    codeword_regularizer,
    official_contrastive_loss,
    paper_contrastive_loss,
    soft_code_entropy,
)

VARIANTS = {
    "paper": (paper_contrastive_loss, reference.paper_contrastive),
    "official": (official_contrastive_loss, reference.official_contrastive),
}


def _views(n, d, n_memory, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, d)),
        rng.standard_normal((n, d)),
        rng.standard_normal((n_memory, d)),
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n_memory", [0, 1, 5])
@pytest.mark.parametrize("prior", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("n,d", [(2, 3), (6, 16)])
def test_loss_matches_the_formula(variant, n, d, n_memory, prior, temperature):
    ours, formula = VARIANTS[variant]
    view1, view2, memory = _views(n, d, n_memory)
    got = ours(
        *(torch.from_numpy(a).float() for a in (view1, view2, memory)),
        temperature=temperature,
        positive_prior=prior,
    )
    want = formula(view1, view2, memory, temperature, prior)
    assert got.item() == pytest.approx(want, rel=2e-5)


@pytest.mark.parametrize("variant,golden", [("paper", 2.19918404), ("official", 3.19092375)])
def test_loss_keeps_its_golden_value(variant, golden):
    inputs = [torch.from_numpy(a) for a in _views(4, 6, 3, seed=3)]
    got = VARIANTS[variant][0](*inputs, temperature=0.3, positive_prior=0.1)
    assert got.item() == pytest.approx(golden, abs=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n_memory", [0, 3])
def test_loss_has_the_right_gradient(variant, n_memory):
    ours, _ = VARIANTS[variant]
    arrays = _views(3, 4, n_memory, seed=1)[: 3 if n_memory else 2]
    inputs = [torch.from_numpy(a).requires_grad_() for a in arrays]

    def loss(view1, view2, memory=None):
        return ours(view1, view2, memory, temperature=0.5, positive_prior=0.1)

    assert torch.autograd.gradcheck(loss, inputs)


def test_the_floor_of_the_debiased_sum_is_reached_and_counts_both_sets_of_negatives():
    # Identical positives and opposite negatives: the estimate falls below what cosines allow.
    view = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    memory = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    temperature, prior = 0.5, 0.5
    got = paper_contrastive_loss(
        view, view, memory[:1], temperature=temperature, positive_prior=prior
    )
    positive, floor = math.exp(1 / temperature), math.exp(-1 / temperature)
    # Anchors at +1: batch and memory at the floor. Anchors at -1: the memory entry is a twin.
    at_floor = -math.log(positive / (positive + 2 * floor + floor))
    twin = (positive - prior * positive) / (1 - prior)
    with_twin = -math.log(positive / (positive + 2 * floor + twin))
    assert got.item() == pytest.approx((at_floor + with_twin) / 2, rel=1e-5)


def test_the_official_floor_is_no_floor_at_its_own_batch_size():
    count, temperature = 254, 0.2
    assert np.float32(math.exp(-count / temperature)) == 0
    assert count * math.exp(-1 / temperature) > 1


def test_without_prior_and_memory_the_paper_loss_is_the_usual_cross_entropy():
    view1, view2, _ = (torch.from_numpy(a) for a in _views(5, 7, 0, seed=2))
    anchors = torch.nn.functional.normalize(torch.cat([view1, view2]), dim=-1)
    logits = (anchors @ anchors.T / 0.3).fill_diagonal_(-torch.inf)
    target = (torch.arange(10) + 5) % 10
    want = torch.nn.functional.cross_entropy(logits, target)
    got = paper_contrastive_loss(view1, view2, temperature=0.3, positive_prior=0.0)
    assert got.item() == pytest.approx(want.item(), rel=1e-10)


def test_the_variants_differ_once_anchors_have_different_negatives():
    view1, view2, memory = (torch.from_numpy(a) for a in _views(4, 6, 3, seed=3))
    settings = {"temperature": 0.3, "positive_prior": 0.1}
    paper = paper_contrastive_loss(view1, view2, memory, **settings)
    official = official_contrastive_loss(view1, view2, memory, **settings)
    assert abs(paper.item() - official.item()) > 1e-3


def test_only_the_official_loss_depends_on_the_length_of_memory_entries():
    view1, view2, memory = (torch.from_numpy(a) for a in _views(4, 6, 3, seed=4))
    settings = {"temperature": 0.3, "positive_prior": 0.1}
    for loss, changes in ((paper_contrastive_loss, False), (official_contrastive_loss, True)):
        short = loss(view1, view2, memory, **settings).item()
        long = loss(view1, view2, 2 * memory, **settings).item()
        assert (abs(short - long) > 1e-6) is changes


@pytest.mark.parametrize("temperature", [0.1, 0.03])
def test_a_small_temperature_neither_overflows_nor_gives_nan(temperature):
    view1, view2, memory = (torch.from_numpy(a).float() for a in _views(8, 4, 6, seed=5))
    view1.requires_grad_()
    loss = paper_contrastive_loss(view1, view2, memory, temperature=temperature, positive_prior=0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(view1.grad).all()


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 5, 4)])
def test_codeword_regularizer_matches_the_double_sum(shape):
    codewords = reference.unit(np.random.default_rng(0).standard_normal(shape))
    got = codeword_regularizer(torch.from_numpy(codewords))
    assert got.item() == pytest.approx(reference.codeword_regularizer(codewords), rel=1e-10)
    assert torch.autograd.gradcheck(
        codeword_regularizer, torch.from_numpy(codewords).requires_grad_()
    )


def test_codeword_regularizer_is_one_for_collapsed_and_zero_for_balanced_codebooks():
    assert codeword_regularizer(torch.tensor([[[1.0, 0.0]] * 4])).item() == pytest.approx(1)
    assert codeword_regularizer(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])).item() == 0


def test_entropy_matches_the_loops_and_survives_zeros():
    rng = np.random.default_rng(0)
    p = rng.random((4, 2, 5))
    p[0, 0] = [1, 0, 0, 0, 0]
    p /= p.sum(-1, keepdims=True)
    codes = torch.from_numpy(p).requires_grad_()
    value = soft_code_entropy(codes)
    value.backward()
    assert value.item() == pytest.approx(reference.entropy(p), rel=1e-10)
    assert torch.isfinite(codes.grad).all()
    positive = torch.from_numpy(p[1:]).requires_grad_()
    assert torch.autograd.gradcheck(soft_code_entropy, positive)
