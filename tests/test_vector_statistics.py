import numpy as np
import pytest

from mecoq_index import vector_statistics
from mecoq_index.errors import InvalidInputError
from mecoq_index.vector_statistics import VectorStatistics


def vectors(n=1000, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 12)).astype(np.float32) + 1


def test_lengths_and_spread_are_those_of_the_rows():
    x = vectors()
    found = VectorStatistics.of(x)
    lengths = np.linalg.norm(x.astype(float), axis=1)
    spread = x.astype(float).std(axis=1) / np.sqrt((x.astype(float) ** 2).mean(axis=1))
    assert found.count == 1000
    np.testing.assert_allclose(found.lengths, np.quantile(lengths, [0.01, 0.5, 0.99]))
    np.testing.assert_allclose(found.spread, np.quantile(spread, [0.01, 0.5, 0.99]))
    assert VectorStatistics.of(x.astype(np.float64)) == found
    scaled = VectorStatistics.of(x * np.float32(1e25))
    np.testing.assert_allclose(scaled.spread, found.spread, rtol=1e-6)
    assert VectorStatistics.of(np.zeros((2, 3))).lengths == (0, 0, 0)


def test_many_rows_are_measured_by_evenly_spaced_ones(monkeypatch):
    monkeypatch.setattr(vector_statistics, "_ROWS_MEASURED", 250)
    x = vectors()
    found = VectorStatistics.of(x)
    assert found.count == 1000
    assert found.lengths == VectorStatistics.of(x[::4]).lengths


def test_vectors_like_those_measured_fit():
    statistics = VectorStatistics.of(vectors())
    for x in (vectors(seed=1), vectors(1, seed=2), 1.8 * vectors(seed=1), vectors(0)):
        assert statistics.check(x) is None


@pytest.mark.parametrize("share,outcome", [(0.5, None), (0.6, "warn"), (0.9, "warn"), (0.95, "no")])
def test_the_share_of_rows_that_do_not_fit_decides(share, outcome):
    statistics, x = VectorStatistics.of(vectors()), vectors(100, seed=1)
    x[: round(share * 100)] *= 100
    figures = rf"z must have lengths as in training, .* {share * 100:.0f} of 100 rows are off by mo"
    if outcome == "no":
        with pytest.raises(InvalidInputError, match=figures):
            statistics.check(x, "z")
    elif outcome is None:
        assert statistics.check(x) is None
    else:
        assert "60 of 100" in statistics.check(x) or "90 of 100" in statistics.check(x)
    assert statistics.check(x, lengths=False) is None


def test_constant_rows_have_another_spread():
    statistics = VectorStatistics.of(vectors())
    with pytest.raises(InvalidInputError, match=r"a spread .* 0.* but 5 of 5 rows are off .* is 0"):
        statistics.check(np.ones((5, 12), np.float32), lengths=False)


def test_plain_values_come_back():
    found = VectorStatistics.of(vectors())
    assert VectorStatistics(**found.to_plain()) == found
    made = VectorStatistics(np.int64(3), np.arange(3), [0, 0, np.float32(1)])
    assert made == VectorStatistics(3, (0.0, 1.0, 2.0), (0.0, 0.0, 1.0))
    assert type(made.count) is int
    assert {type(value) for value in (*made.lengths, *made.spread)} == {float}


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((0, (1, 1, 1), (1, 1, 1)), "must be a count above 0 and three ascending numbers"),
        ((1, (2, 1, 3), (1, 1, 1)), "three ascending numbers"),
        ((1, (1, 1), (1, 1, 1)), "three ascending numbers"),
        ((1, (1, 1, 1), (1, 1, np.nan)), "three ascending numbers"),
        ((1, (1, 1, 1), (-1, 1, 1)), "three ascending numbers"),
        ((1, "abc", (1, 1, 1)), "statistics of vectors must be numbers"),
        ((None, (1, 1, 1), (1, 1, 1)), "statistics of vectors must be numbers"),
    ],
)
def test_other_values_are_no_statistics(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        VectorStatistics(*arguments)
    with pytest.raises(InvalidInputError, match="x must have at least one row to be measured"):
        VectorStatistics.of(np.empty((0, 3)))
