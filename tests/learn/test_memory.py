import pytest
import torch

from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.objective.memory import CodeMemory
from mecoq_index.learn.objective.quantizer import SoftQuantizer


def _codes(start, stop):
    return torch.arange(start, stop, dtype=torch.float32)[:, None, None].expand(-1, 2, 3)


def _held(memory):
    return sorted(memory.soft_codes()[:, 0, 0].tolist())


@pytest.mark.parametrize("capacity", [1, 4, 7, 10, 64])
@pytest.mark.parametrize("batches", [[4], [4, 4, 4, 2], [3, 1, 20, 5], [0, 2, 0]])
def test_memory_holds_the_newest_codes(capacity, batches):
    memory = CodeMemory(capacity, 2, 3)
    seen = []
    for size in batches:
        memory.enqueue(_codes(len(seen), len(seen) + size))
        seen += range(len(seen), len(seen) + size)
        assert len(memory) == min(capacity, len(seen))
        assert _held(memory) == seen[-capacity:]  # numbered in the order they came


def test_memory_never_shows_a_row_that_was_not_enqueued():
    memory = CodeMemory(10, 2, 3)
    assert memory.soft_codes().shape == (0, 2, 3)
    memory.enqueue(_codes(5, 8))
    assert _held(memory) == [5, 6, 7]


def test_memory_keeps_a_detached_copy():
    memory = CodeMemory(4, 1, 2)
    soft = torch.rand(2, 1, 2, requires_grad=True)
    memory.enqueue(soft)
    with torch.no_grad():
        soft.fill_(9)
    assert not memory.soft_codes().requires_grad
    assert memory.soft_codes().max() < 9


def test_memory_is_decoded_with_the_codebooks_of_now():
    torch.manual_seed(0)
    quantizer = SoftQuantizer(2, 3, 4, alpha=10.0)
    memory = CodeMemory(4, 2, 3)
    memory.enqueue(quantizer(torch.randn(4, 8)).soft_codes)
    before = quantizer.decode(memory.soft_codes()).detach()
    with torch.no_grad():
        quantizer.codewords.neg_()
    after = quantizer.decode(memory.soft_codes())
    torch.testing.assert_close(after, -before)
    after.sum().backward()
    assert quantizer.codewords.grad is not None


def test_state_survives_a_round_trip_in_the_middle_of_the_ring():
    memory = CodeMemory(5, 2, 3)
    memory.enqueue(_codes(0, 8))
    copy = CodeMemory(5, 2, 3)
    copy.load_state_dict(memory.state_dict())
    for m in (memory, copy):
        m.enqueue(_codes(8, 10))
    torch.testing.assert_close(copy.soft_codes(), memory.soft_codes(), rtol=0, atol=0)
    assert _held(copy) == [5, 6, 7, 8, 9]


def test_capacity_must_be_positive():
    with pytest.raises(InvalidInputError, match="capacity must be at least 1, got 0"):
        CodeMemory(0, 2, 3)
