"""Operations by slabs: on fields, on plain arrays and on mixtures of both they give the same numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon.backend import slabs
from gpudecon.backend.numpy import NumpyBackend

OPERATIONS = {
    "rl_update": (3, ()),
    "rl_unmatched_factor": (2, ()),
    "rl_update_momentum": (4, (0.6, 0.8)),
    "rl_step": (4, ()),
    "rl_predict": (3, (0.7,)),
    "projected_step": (2, (0.3, 0.1)),
    "bounded_sum": (3, (0.5, -0.7, 0.2)),
}


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 8)),
    name=st.sampled_from(sorted(OPERATIONS)),
    is_field=st.lists(st.booleans(), min_size=4, max_size=4),
    threads=st.integers(1, 3),
    slab_bytes=st.sampled_from([64, 300, 1 << 20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_unused_numbers_between_rows_change_nothing(shape, name, is_field, threads, slab_bytes, seed):
    rng = np.random.default_rng(seed)
    count, numbers = OPERATIONS[name]
    values = [rng.standard_normal(shape).astype(np.float32) ** 2 for _ in range(count)]
    expected = [v.copy() for v in values]
    getattr(NumpyBackend(1).ops, name)(*expected, *numbers)

    backend = NumpyBackend(threads)
    plan, arrays = backend.plan(shape), []
    for value, is_one in zip(values, is_field, strict=False):
        spectrum, field = plan.empty()
        rows = spectrum.view(np.float32)
        assert (rows[..., shape[2] :] == 0).all()
        rows[...] = np.nan  # as a failed transform would leave it
        arrays.append(field if is_one else np.empty(shape, np.float32))
        arrays[-1][...] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "SLAB_BYTES", slab_bytes)
        getattr(backend.ops, name)(*arrays, *numbers)
    for array, value in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 4), (3, 1, 5), (4, 5, 6)])
def test_operations_on_fields_work_on_whole_rows(shape):
    """Which is what makes them quick: the numbers behind the rows, 0 in a new field, are worked on too."""
    backend = NumpyBackend(1)
    (spectrum, estimate), (_, work) = (backend.plan(shape).empty() for _ in range(2))
    work[...], estimate[...] = 3, 1
    behind = spectrum.view(np.float32)[..., shape[2] :]
    assert behind.size
    assert (behind == 0).all()
    behind[...] = 2
    backend.ops.rl_unmatched_factor(estimate, None)
    assert (estimate == 2).all()
    assert (behind == 3).all()
    backend.ops.rl_update(estimate, work, np.ones(shape, np.float32))  # a plain array among them
    assert (estimate == 6).all()
    assert (behind == 3).all()


def test_a_field_seen_otherwise_is_not_taken_for_the_field():
    backend = NumpyBackend(1)
    field = backend.plan((4, 5, 6)).empty()[1]
    work = backend.plan((4, 5, 6)).empty()[1]
    for view in (field[::-1], field[:, ::-1], field[..., ::-1], field[:, :, :5], field[1:], field[:, 1:]):
        field[...], work[...] = np.arange(120, dtype=np.float32).reshape(4, 5, 6), 2
        cut = work[: view.shape[0], : view.shape[1], : view.shape[2]]
        expected = view * 2
        untouched = field.sum() - view.sum()
        backend.ops.rl_update(view, cut, None)
        np.testing.assert_array_equal(view, expected)
        assert field.sum() - view.sum() == untouched
