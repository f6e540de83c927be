"""Kernels of least squares and total variation: each is its twin and its formula, and divergence adjoins gradient."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import Slabs

from .examples import (
    EXAMPLES,
    PIXELS,
    SHAPES,
    after_twin,
    bounded_sum,
    inner_product,
    projected_step,
    residual,
    tv_dual,
    tv_gap,
    tv_primal,
)
from .test_kernels import EPS, after_kernel, both, shorter, sparse, wide

shapes = pytest.mark.parametrize(("domain", "box"), SHAPES)
bounds = pytest.mark.parametrize("lowest", [0.0, -np.inf])


def gradient(estimate, factors):
    """Forward differences in float64, voxel by voxel."""
    out = np.zeros((3, *estimate.shape))
    for index in np.ndindex(estimate.shape):
        for axis in range(3):
            after = tuple(i + (a == axis) for a, i in enumerate(index))
            if after[axis] < estimate.shape[axis]:
                out[axis][index] = factors[axis] * (float(estimate[after]) - float(estimate[index]))
    return out


@shapes
@pytest.mark.parametrize("dtype", PIXELS)
@pytest.mark.parametrize("full", [False, True])
def test_residual(device, rng, domain, box, dtype, full):
    arguments = residual(rng, domain, box, dtype, full)
    [(actual, expected)] = both(device, "residual", arguments)
    nz, ny, nx = box
    model = arguments["work"][:nz, :ny, :nx] + 0.7 + (arguments["background_image"].astype(float) if full else 0.0)
    exact = arguments["image"] - model
    if full:
        exact[arguments["mask"] == 0] = 0
    # three sums of numbers no larger than these
    atol = 3 * EPS * (np.abs(arguments["image"].astype(float)).max() + np.abs(model).max())
    assert_allclose(actual, expected, rtol=0, atol=atol)
    assert_allclose(actual[:nz, :ny, :nx], exact, rtol=0, atol=atol)
    actual[:nz, :ny, :nx] = 0
    assert not actual.any()


@shapes
@bounds
def test_projected_step(device, rng, domain, box, lowest):
    arguments = projected_step(rng, domain, box, lowest)
    [(actual, expected)] = both(device, "projected_step", arguments)
    exact = np.maximum(arguments["estimate"].astype(float) + 1.3 * arguments["work"].astype(float), lowest)
    atol = 2 * EPS * (np.abs(arguments["estimate"]).max() + 1.3 * np.abs(arguments["work"]).max())
    assert_allclose(actual, expected, rtol=0, atol=atol)
    assert_allclose(actual, exact, rtol=0, atol=atol)


@shapes
@bounds
def test_bounded_sum(device, rng, domain, box, lowest):
    arguments = bounded_sum(rng, domain, box, lowest)
    [(actual, expected)] = both(device, "bounded_sum", arguments)
    exact = 0.7 * arguments["target"].astype(float) - 1.2 * arguments["other"].astype(float)
    if lowest == 0:
        exact[(arguments["estimate"] == 0) & (exact < 0)] = 0
    atol = 3 * EPS * 2 * max(np.abs(arguments[name]).max() for name in ("target", "other"))
    assert_allclose(actual, expected, rtol=0, atol=atol)
    assert_allclose(actual, exact, rtol=0, atol=atol)
    if lowest == 0 and exact.size > 200:
        assert (actual[arguments["estimate"] == 0] == 0).any()
        assert (actual < 0).any()


@shapes
def test_inner_product(device, rng, domain, box):
    arguments = inner_product(rng, domain, box)
    [(actual, expected)] = both(device, "inner_product", arguments)
    a, b = arguments["work"].astype(float), arguments["other"].astype(float)
    tolerance = {"rtol": 0, "atol": 1e-14 * float(np.abs(a * b).sum(axis=2).max())}  # double precision throughout
    assert_allclose(actual, (a * b).sum(axis=2), **tolerance)
    assert_allclose(expected, (a * b).sum(axis=2), **tolerance)


def test_inner_product_of_the_smallest_and_largest_values(device):
    for value in (1e-30, 1e30):  # whose squares no float32 holds
        field = np.full((1, 1, 4), value, np.float32)
        for rows in both(device, "inner_product", {"rows": np.full((1, 1), np.nan), "work": field, "other": field})[0]:
            assert_allclose(rows, 4 * value**2, rtol=1e-6)


@shapes
def test_tv_dual(device, rng, domain, box):
    arguments = tv_dual(rng, domain, box)
    pairs = both(device, "tv_dual", arguments, ["dual", "lead"])
    moved = arguments["lead"] + gradient(arguments["estimate"], (0.1, 0.5, 0.7))
    dual = moved / np.maximum(np.sqrt((moved**2).sum(axis=0)), 1)
    lead = dual + 0.6 * (dual - arguments["dual"])
    # about ten roundings of numbers below 10: differences of the estimate, squares, a root, a quotient
    for (actual, expected), exact in zip(pairs, (dual, lead), strict=True):
        assert_allclose(actual, expected, rtol=0, atol=10 * EPS * 10)
        assert_allclose(actual, exact, rtol=0, atol=10 * EPS * 10)


@shapes
@bounds
def test_tv_primal(device, rng, domain, box, lowest):
    arguments = tv_primal(rng, domain, box, lowest)
    [(actual, expected)] = both(device, "tv_primal", arguments)
    assert_allclose(actual, expected, rtol=0, atol=7 * EPS * 8)  # seven sums of numbers below 8 in either order
    if lowest == 0:
        free = after_kernel(device, "tv_primal", {**arguments, "lowest": -np.inf})["estimate"]
        assert_array_equal(actual, np.maximum(free, 0))


@shapes
def test_tv_gap(device, rng, domain, box):
    arguments = tv_gap(rng, domain, box)
    [(actual, expected)] = both(device, "tv_gap", arguments)
    g = gradient(arguments["estimate"], (0.3, 1.1, 1.5))
    terms = np.sqrt((g**2).sum(axis=0)) - (g * arguments["dual"]).sum(axis=0)
    atol = 10 * EPS * np.abs(g).max() * 3 * domain[2]
    assert_allclose(actual, terms.sum(axis=2), rtol=0, atol=atol)
    assert_allclose(expected, terms.sum(axis=2), rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [(5, 7, 11), (1, 33, 35), (9, 1, 6), (3, 4, 1), (11, 21, 17)])
@pytest.mark.parametrize("voxel_um", [(0.3, 0.1, 0.12), (0.1, 0.1, 0.1)])
@pytest.mark.parametrize("on", ["device", "cpu"])
def test_divergence_is_minus_the_adjoint_of_the_gradient(request, rng, shape, voxel_um, on):
    """<grad u, p> = -<u, div p> to 1e-6 of |grad u| |p|, both operators as the methods use them, in float32."""
    ops = NumpyOps(Slabs(1)) if on == "cpu" else request.getfixturevalue("host_device").ops
    factors = [min(voxel_um) / v for v in voxel_um]
    u = (rng.random(shape) * 0.1).astype(np.float32)  # gradients stay shorter than 1, so that no projection acts
    p = rng.normal(size=(3, *shape)).astype(np.float32)
    grad, div = np.zeros((3, *shape), np.float32), np.full(shape, np.nan, np.float32)
    ops.tv_dual(grad, np.zeros_like(grad), u, *factors, 0.0)
    ops.tv_primal(div, np.zeros_like(u), p, *factors, -np.inf)
    assert grad.any()
    left, right = (np.vdot(a.astype(float), b.astype(float)) for a, b in ((grad, p), (u, div)))
    scale = np.linalg.norm(grad.astype(float)) * np.linalg.norm(p.astype(float))
    assert abs(left + right) <= 1e-6 * scale
    assert abs(left) > 1e-4 * scale


@pytest.mark.parametrize(
    ("method", "poisoned"),
    [
        ("residual", "work"),
        ("projected_step", "work"),
        ("bounded_sum", "other"),
        ("inner_product", "work"),
        ("tv_dual", "estimate"),
        ("tv_primal", "source"),
        ("tv_gap", "estimate"),
    ],
)
def test_nan_is_not_hidden(device, rng, method, poisoned):
    arguments = EXAMPLES[method](rng, *SHAPES[0])
    if arguments.get("mask") is not None:
        arguments["mask"][0, 0, 0] = 1
    arguments[poisoned][0, 0, 0] = np.nan
    actual = after_kernel(device, method, arguments)
    expected = after_twin(NumpyOps(Slabs(1)), method, arguments)
    output = next(iter(arguments))
    assert np.isnan(actual[output].flat[0])
    assert np.isnan(expected[output].flat[0])


@pytest.mark.parametrize(
    ("method", "argument", "spoil"),
    [
        ("residual", "image", wide),
        ("residual", "mask", shorter),
        ("residual", "background_image", wide),
        ("projected_step", "work", shorter),
        ("projected_step", "estimate", sparse),
        ("bounded_sum", "other", wide),
        ("bounded_sum", "estimate", shorter),
        ("inner_product", "rows", shorter),
        ("inner_product", "other", sparse),
        ("tv_dual", "lead", shorter),
        ("tv_dual", "dual", wide),
        ("tv_dual", "estimate", wide),
        ("tv_primal", "dual", sparse),
        ("tv_primal", "source", shorter),
        ("tv_gap", "rows", shorter),
        ("tv_gap", "dual", shorter),
    ],
)
def test_what_a_kernel_cannot_address_is_refused(device, rng, method, argument, spoil):
    arguments = EXAMPLES[method](rng, (5, 7, 12), (5, 4, 9))
    on_device = {n: device.xp.asarray(a) if isinstance(a, np.ndarray) else a for n, a in arguments.items()}
    on_device[argument] = spoil(on_device[argument])
    with pytest.raises(TypeError, match=r"must be|is needed|does not fit"):
        getattr(device.ops, method)(*on_device.values())
