"""Padded shapes: large enough, tabulated, and never worse than the next smooth length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import next_fast_len

from gpudecon.backend.fft_length import cost, cost_table, fastest_shape

LIBRARIES = ["scipy", "ducc0", "cufft"]


@pytest.mark.parametrize("library", LIBRARIES)
@given(least=st.lists(st.integers(1, 9000), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_shape_is_large_enough_and_not_wasteful(library, least):
    shape = fastest_shape(tuple(least), library)
    assert len(shape) == len(least)
    for n, wanted in zip(shape, least, strict=True):
        assert wanted <= n <= max(wanted * 1.35, wanted + 8)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("least", [(124, 306, 306), (61, 509, 509), (1, 1000, 37), (251, 1021, 2039)])
def test_predicted_time_is_at_most_that_of_the_next_smooth_lengths(library, least):
    def predicted(shape):
        size = 1
        for n in shape:
            size *= n
        return size * sum(cost(n, library) for n in shape if n > 1)

    smooth = tuple(next_fast_len(n) if n > 1 else 1 for n in least)
    assert predicted(fastest_shape(least, library)) <= predicted(smooth) * 1.000001


@pytest.mark.parametrize("library", LIBRARIES)
def test_table_holds_positive_costs_of_ascending_lengths(library):
    table = cost_table(library)
    assert list(table) == sorted(table)
    assert min(table.values()) > 0
    assert max(table) >= 2048
