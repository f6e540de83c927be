"""CupyBackend's own rules, on a machine without a GPU: what it hands to CuPy is right, whatever CuPy does with it."""

import numpy as np
import pytest

from gpudecon.backend.cupy import check_field
from gpudecon.backend.numpy import NumpyBackend


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 5, 7), (1, 5, 6)])
def test_only_fields_are_transformed(shape):
    """A contiguous array of the same shape has other rows, and ends before the transform does."""
    _, field = NumpyBackend(threads=1).plan(shape).empty()
    check_field(field, shape)
    for wrong in (np.zeros(shape, np.float32), field.astype(float), field[..., :-1], field[..., ::-1]):
        with pytest.raises(TypeError, match="real view of a field"):
            check_field(wrong, shape)
