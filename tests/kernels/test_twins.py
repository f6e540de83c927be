"""NumpyOps: the same bits however the work is cut and shared."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpudecon.backend import slabs
from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import Slabs

from .examples import EXAMPLES, SHAPES, after_twin

methods = pytest.mark.parametrize("method", EXAMPLES)


def test_every_operation_has_an_example():
    operations = {name for name in dir(NumpyOps) if not name.startswith("_")}
    assert set(EXAMPLES) == operations


@methods
@pytest.mark.parametrize(("domain", "box"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("slab_bytes", [1, 3000])
def test_same_bits_in_any_slabs_on_any_threads(rng, monkeypatch, method, domain, box, threads, slab_bytes):
    arguments = EXAMPLES[method](rng, domain, box)
    whole = after_twin(NumpyOps(Slabs(1)), method, arguments)
    monkeypatch.setattr(slabs, "SLAB_BYTES", slab_bytes)
    pieces = after_twin(NumpyOps(Slabs(threads)), method, arguments)
    for name, value in whole.items():
        assert_array_equal(pieces[name], value)
    first = next(iter(whole.values()))
    assert not np.isnan(first).any()


def test_an_error_in_a_slab_is_raised(rng, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1)
    arguments = EXAMPLES["multiply_otf"](rng, *SHAPES[0])
    arguments["otf"] = arguments["otf"][..., :-2].copy()
    with pytest.raises(ValueError, match="broadcast"):
        after_twin(NumpyOps(Slabs(2)), "multiply_otf", arguments)
