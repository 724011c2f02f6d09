import numpy as np
import pytest

from mecoq_index._arrays import as_ids, as_vectors, check_k, distinct_ids, unit_rows
from mecoq_index.errors import InvalidInputError

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.astype(np.float16),
        X.astype(np.float64),
        X.astype(">f4"),
        X.astype(np.uint8),
        X.astype(np.int64),
        X.tolist(),
        [tuple(row) for row in X],
        X.astype(float).T.copy().T,
        np.repeat(X, 2, axis=0)[::2],
    ],
)
def test_numbers_of_all_kinds_become_float32_in_c_order(x):
    found = as_vectors(x, 3)
    np.testing.assert_array_equal(found, X)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert as_vectors(X) is X
    assert as_vectors(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    "x,message",
    [
        (np.ones((2, 3), bool), "z must be a float32 array, got bool"),
        (
            np.ones((2, 3), complex),
            r"z must be a float32 array, got complex128\. Other floats and integers are c",
        ),
        (np.array([[None]]), "z must be a float32 array, got object"),
        ("photo.jpg", "z must be a float32 array, got str of <U9"),
        ([[1, 2], [3]], r"z must be a float32 array, got list that NumPy cannot turn into one"),
        (None, "z must be a float32 array, got NoneType of object"),
        ([1.0, 2.0], r"must have shape \(n, D\), got \(2,\)\. Use z\[None, :\] for a single vect"),
        ([], r"must have shape \(n, D\), got \(0,\)"),
        (np.ones((2, 2, 2)), r"must have shape \(n, D\), got \(2, 2, 2\)"),
        ([[1e300, 0.0]], "z must be finite, but 1 of 1 rows hold NaN or Inf, the first of them ro"),
        ([[0.0], [np.nan]], "1 of 2 rows hold NaN or Inf, the first of them row 1"),
    ],
)
def test_other_values_are_no_vectors(x, message):
    with pytest.raises(InvalidInputError, match=message):
        as_vectors(x, name="z")
    with pytest.raises(InvalidInputError, match=r"x must have shape \(n, 4\), got \(2, 3\)"):
        as_vectors(X.astype(float), 4)


@pytest.mark.parametrize(
    "ids", [[3, 0, 7], range(0, 9, 3), np.array([3, 0, 7], np.uint8), np.array([3, 0, 7], np.int64)]
)
def test_integers_of_all_kinds_become_ids(ids):
    found = as_ids(ids, 3)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, list(ids))
    wanted, places = distinct_ids([*ids, ids[0]])
    np.testing.assert_array_equal(wanted[places], [*ids, ids[0]])


def test_no_ids_are_ids():
    assert as_ids([]).dtype == np.int64
    assert as_ids(np.empty(0, np.int32), 0).shape == (0,)


@pytest.mark.parametrize(
    "ids,message",
    [
        ([1.0], "ids must be an int64 array, got list of float64"),
        (np.array([True]), "ids must be an int64 array, got bool"),
        (["a.jpg"], "ids must be an int64 array, got list of <U5"),
        (np.array([2**63], np.uint64), r"ids must be below 2\*\*63, got 9223372036854775808"),
        ([2**70], "ids must be an int64 array, got list of object"),
        ([1, 1], "ids must be distinct, but 1 repeat"),
        ([-1, 1], "ids must not be negative, got -1"),
        ([[1, 2]], r"ids must have shape \(n,\), got \(1, 2\)"),
    ],
)
def test_other_values_are_no_ids(ids, message):
    with pytest.raises(InvalidInputError, match=message):
        as_ids(ids)
    with pytest.raises(InvalidInputError, match=r"ids must have shape \(4,\), got \(3,\)"):
        as_ids([1, 2, 3], 4)


def test_k_may_be_an_integer_of_numpy():
    assert type(check_k(np.int16(3))) is int
    for bad in (0, True, 2.0, "3", np.float32(1)):
        with pytest.raises(InvalidInputError, match="k, the number of results per query, must be"):
            check_k(bad)


def test_rows_of_any_length_become_unit_rows():
    x = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    x[:4] *= np.float32(1e30)
    x[4:8] *= np.float32(1e-30)
    x[8] = 0
    before = x.copy()
    want = x.astype(np.float64)
    want /= np.maximum(np.linalg.norm(want, axis=1, keepdims=True), 1e-300)
    np.testing.assert_allclose(unit_rows(x), want, atol=1e-6)
    np.testing.assert_array_equal(x, before)
