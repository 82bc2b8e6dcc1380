"""Moves of weights: there and back is bit for bit, in both directions, for every dtype."""

from math import prod

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstock.bridge.layers import Join, Part, Permute, Split, Stack
from linstock.bridge.layers._moves import move_to_linen, move_to_torch, shape_after, shape_before

DTYPES = [
    *(np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_, np.complex64),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def numbered(shape, dtype=np.int64):
    """An array whose entries have bits of their own, NaNs among them."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = (np.arange(size, dtype=np.int64) * 37 % 251).astype(np.uint8)
    return (
        raw.view(dtype).reshape(shape) if dtype is not np.bool_ else (raw % 3 == 0).reshape(shape)
    )


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@st.composite
def permutes(draw, shape):
    return Permute(tuple(draw(st.permutations(range(len(shape))))))


@st.composite
def parts(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    start = draw(st.integers(0, shape[axis] - 1))
    return Part(axis, start, draw(st.integers(start + 1, shape[axis])), shape[axis])


@st.composite
def splits(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    first = draw(st.sampled_from(divisors))
    ways = [
        (first, size // first),
        (size,),
        (1, first, size // first),
        *([()] if size == 1 else []),
    ]
    return Split(axis, draw(st.sampled_from(ways)))


@st.composite
def joins(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    return Join(axis, shape[axis : draw(st.integers(axis + 1, len(shape)))])


KINDS = {"permute": permutes, "part": parts, "split": splits, "join": joins}


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_a_move_is_undone_from_either_side(kind, data):
    shape = data.draw(SHAPES)
    move = data.draw(KINDS[kind](shape))
    tensor = numbered(shape)
    variable = move.to_linen(tensor)
    assert variable.shape == move.shape_in_linen(shape)
    assert move.shape_in_torch(variable.shape) == shape
    assert_same_bits(move.to_torch(variable, tensor.copy()), tensor)
    assert_same_bits(move.to_linen(move.to_torch(variable)), variable)


@given(st.data())
def test_moves_one_after_another_are_undone(data):
    shape = now = data.draw(SHAPES)
    moves = []
    for _ in range(data.draw(st.integers(0, 4))):
        if now:
            moves.append(data.draw(st.sampled_from(list(KINDS.values())).flatmap(lambda k: k(now))))  # noqa: B023
            now = moves[-1].shape_in_linen(now)
    tensor = numbered(shape)
    variable = move_to_linen(moves, tensor)
    assert variable.shape == shape_after(moves, shape)
    assert shape_before(moves, variable.shape) == shape
    # What no part holds stays as it was, and a part that was changed is written.
    changed = move_to_torch(moves, variable + 1, tensor.copy())
    assert_same_bits(move_to_linen(moves, changed), variable + 1)
    assert_same_bits(move_to_torch(moves, variable.copy(), changed), tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_keeps_its_bits(dtype):
    moves = (Part(0, 2, 6, 8), Split(0, (2, 2)), Permute((2, 0, 1)), Join(1, (2, 2)))
    tensor = numbered((8, 3), dtype)
    variable = move_to_linen(moves, tensor)
    assert variable.shape == (3, 4)
    assert_same_bits(move_to_torch(moves, variable, tensor.copy()), tensor)


@given(SHAPES, st.integers(1, 3), st.data())
def test_stacked_tensors_are_taken_apart_again(shape, count, data):
    stack = Stack(data.draw(st.integers(0, len(shape))), count)
    tensors = [numbered(shape) + i for i in range(count)]
    variable = stack.to_linen(tensors)
    assert variable.shape == stack.shape_in_linen(shape)
    assert stack.shape_in_torch(variable.shape) == shape
    for found, expected in zip(stack.to_torch(variable), tensors, strict=True):
        assert_same_bits(found, expected)


@pytest.mark.parametrize(
    ("move", "text"),
    [
        (Permute((1, 0)), "transpose [1, 0]"),
        (Part(0, 2, 4, 6), "rows 2:4"),
        (Part(1, 2, 4, 6), "axis 1 at 2:4"),
        (Split(1, (2, 3)), "split axis 1 into [2, 3]"),
        (Split(0, ()), "drop axis 0"),
        (Join(1, (2, 3)), "join axes [1, 2]"),
        (Stack(0, 4), "stack 4 along axis 0"),
    ],
)
def test_a_move_says_what_it_does(move, text):
    assert move.text == text
