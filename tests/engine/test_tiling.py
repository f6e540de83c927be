"""Tiles against an array of counters: every voxel is written once, from a window that has its surroundings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon.engine.tiling import Tiling
from gpudecon.errors import InputError

quick = settings(max_examples=60, deadline=None)


def shapes(low, high):
    return st.tuples(*(st.integers(low, high),) * 3)


@st.composite
def tilings(draw):
    """Small stacks, so that a core, a halo and a unit may each be larger than the stack."""
    stack, unit, multiple = draw(shapes(1, 13)), draw(shapes(1, 6)), draw(shapes(1, 4))
    core = tuple(u * m for u, m in zip(unit, multiple, strict=True))
    return Tiling(stack, core, draw(shapes(0, 17)), unit)


@quick
@given(tilings())
def test_cores_partition_the_stack(tiling):
    written = np.zeros(tiling.stack, int)
    for tile in tiling:
        written[tile.core] += 1
    assert (written == 1).all()
    assert len(list(tiling)) == len(tiling) == np.prod(tiling.counts)


@quick
@given(tilings())
def test_crop_of_what_is_read_is_the_core(tiling):
    stack = np.arange(np.prod(tiling.stack)).reshape(tiling.stack)
    for i, tile in enumerate(tiling):
        read = stack[tile.read]
        assert tile.index == i
        assert read.shape == tiling.read_shape
        np.testing.assert_array_equal(read[tile.crop], stack[tile.core])


@quick
@given(tilings())
def test_halo_is_there_unless_the_stack_ends(tiling):
    for tile in tiling:
        for core, read, halo, length in zip(tile.core, tile.read, tiling.halo, tiling.stack, strict=True):
            assert read.start <= max(core.start - halo, 0)
            assert read.stop >= min(core.stop + halo, length)


@quick
@given(tilings())
def test_no_two_tiles_write_into_one_unit(tiling):
    owner = np.full(tiling.stack, -1)
    for tile in tiling:
        owner[tile.core] = tile.index
    for corner in np.ndindex(*(-(-n // u) for n, u in zip(tiling.stack, tiling.unit, strict=True))):
        unit = tuple(slice(i * u, (i + 1) * u) for i, u in zip(corner, tiling.unit, strict=True))
        assert len(np.unique(owner[unit])) == 1


@pytest.mark.parametrize(
    ("stack", "core", "halo", "counts", "read"),
    [
        ((37, 203, 511), (37, 64, 128), (9, 20, 21), (1, 4, 4), (37, 104, 170)),
        ((1, 203, 511), (1, 96, 96), (0, 7, 7), (1, 3, 6), (1, 110, 110)),
        ((37, 203, 511), (64, 256, 512), (5, 5, 5), (1, 1, 1), (37, 203, 511)),
        ((37, 203, 511), (32, 203, 511), (300, 300, 600), (2, 1, 1), (37, 203, 511)),
    ],
)
def test_known_cuts(stack, core, halo, counts, read):
    tiling = Tiling(stack, core, halo)
    assert (tiling.counts, tiling.read_shape) == (counts, read)


def test_last_tile_is_what_is_left():
    tile = Tiling((37, 203, 511), (37, 64, 128), (9, 20, 21))[15]
    assert tile.core == (slice(0, 37), slice(192, 203), slice(384, 511))
    assert tile.read == (slice(0, 37), slice(99, 203), slice(341, 511))  # moved inward
    assert tile.crop == (slice(0, 37), slice(93, 104), slice(43, 170))


def test_a_billion_tiles_cost_nothing():
    tiling = Tiling((1000, 10**6, 10**6), (1, 1000, 1000), (5, 20, 20))
    assert len(tiling) == 10**9
    assert tiling[10**9 - 1].core == (slice(999, 1000), slice(999_000, 10**6), slice(999_000, 10**6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((9, 9, 9), (4, 4, 4), (1, 1, 1), (4, 4, 3)), "whole write units"),
        (((9, 9, 0), (4, 4, 4)), "at least 1"),
        (((9, 9, 9), (4, 4, 4), (0, -1, 0)), "at least 1"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Tiling(*arguments)


@pytest.mark.parametrize("index", [-1, 4])
def test_index_out_of_range(index):
    with pytest.raises(IndexError):
        Tiling((4, 4, 4), (4, 2, 2))[index]
