"""A short run of every fuzzing target; fuzz.py makes long ones."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("faiss")
pytest.importorskip("pymilvus")
pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
pytest.importorskip("resource")

from hostile import fuzz, mutations, targets

ROUNDS = 60
# Places from which an error comes that is none of ours, by targets. This must become empty.
KNOWN: dict[str, tuple[str, ...]] = {}


def test_every_target_has_a_small_corpus():
    assert all(targets.corpus(name) for name in targets.TARGETS)
    assert sum(path.stat().st_size for path in targets.CORPUS.iterdir()) < 300_000
    for path in targets.CORPUS.iterdir():
        assert path.name.partition(".")[0] in targets.TARGETS


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_corpus_and_changes_of_it_raise_errors_of_ours_only(name):
    rng = np.random.default_rng(0)
    inputs, target = targets.corpus(name), targets.TARGETS[name]
    blind, accepted, found = mutations.blindly(rng), 0, {}
    for turn in range(len(inputs) + ROUNDS):
        data = inputs[turn % len(inputs)]
        if turn >= len(inputs):
            data = mutations.mutated(rng, data, blind)
        try:
            accepted += fuzz.watched(target, data)
        except Exception as exc:
            found.setdefault(fuzz.place_of(exc), (exc, data))
    fresh = {p: e for p, e in found.items() if p not in KNOWN.get(name, ())}
    assert not fresh, "\n".join(f"{p}: {exc!r}, for {data!r}" for p, (exc, data) in fresh.items())
    assert accepted > 0


def test_what_is_no_error_of_ours_is_noticed():
    def divide(text):
        return 1 // len(text)

    target = targets.Target("", divide)
    assert target(b"a")
    with pytest.raises(ZeroDivisionError):
        target(b"")


def test_an_error_that_says_nothing_is_noticed():
    from mecoq_index.errors import InvalidInputError

    def refuse(text):
        raise InvalidInputError(" ")

    with pytest.raises(targets.BadMessageError, match="empty"):
        targets.Target("", refuse)(b"")


def test_a_hang_is_noticed(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1)

    def forever(text):
        while True:
            pass

    with pytest.raises(fuzz.TooSlowError):
        fuzz.watched(targets.Target("", forever), b"")
