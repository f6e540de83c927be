"""Kernels of Richardson-Lucy and its penalties: each is its twin and its formula, and a penalty's own gradient."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import Slabs

from .examples import EXAMPLES, PIXELS, SHAPES, after_twin
from .test_kernels import EPS, after_kernel, both, shorter, sparse, wide

shapes = pytest.mark.parametrize(("domain", "box"), SHAPES)
each_weighted = pytest.mark.parametrize("weighted", [False, True])
ROUGHNESS = ["tv_factor", "good_factor", "tikhonov_factor"]


@shapes
@pytest.mark.parametrize("dtype", PIXELS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("method", "subtracted"), [("rl_ratio", 0.0), ("rl_excess", 1.0)])
def test_ratio_of_image_and_model(device, rng, domain, box, dtype, full, method, subtracted):
    arguments = EXAMPLES[method](rng, domain, box, dtype, full)
    [(actual, expected)] = both(device, method, arguments)
    nz, ny, nx = box
    blurred = arguments["work"][:nz, :ny, :nx].astype(float)
    background = 0.7 + (arguments["background_image"].astype(float) if full else np.zeros(box))
    model = np.maximum(blurred + background, 0.1)
    exact = arguments["image"] / model - subtracted
    # the model's two sums, in which the parts may cancel, a quotient and a difference
    parts = np.abs(blurred) + background
    atol = EPS * (np.abs(exact + subtracted) * (1 + parts / model) + 1)
    if full:
        exact[arguments["mask"] == 0] = 0
    for result in (actual, expected):
        assert (np.abs(result[:nz, :ny, :nx] - exact) <= atol).all()
        if full:
            assert not result[:nz, :ny, :nx][arguments["mask"] == 0].any()
        result[:nz, :ny, :nx] = 0
        assert not result.any()


@shapes
@pytest.mark.parametrize("weighted", [False, True])
def test_rl_unmatched_factor(device, rng, domain, box, weighted):
    arguments = EXAMPLES["rl_unmatched_factor"](rng, domain, box, weighted)
    [(actual, expected)] = both(device, "rl_unmatched_factor", arguments)
    change = arguments["work"].astype(float) * (arguments["weights"].astype(float) if weighted else 1)
    for result in (actual, expected):
        assert (np.abs(result - np.maximum(1 + change, 0.5)) <= EPS * (1 + np.abs(change))).all()  # a product and a sum


def updated(arguments):
    """Estimate * max(work, 0) * weights in float64."""
    weights = 1.0 if arguments["weights"] is None else arguments["weights"].astype(float)
    return arguments["estimate"].astype(float) * np.maximum(arguments["work"], 0) * weights


@shapes
@each_weighted
def test_rl_update(device, rng, domain, box, weighted):
    arguments = EXAMPLES["rl_update"](rng, domain, box, weighted)
    for result in both(device, "rl_update", arguments)[0]:
        assert_allclose(result, updated(arguments), rtol=2 * EPS)  # two products
        assert (result == 0).any()
        assert (result > 0).any()


def ahead(new, step):
    """New + step, downwards exponentially, where not so far that float32 holds it for 0."""
    falling = np.exp(np.maximum(step / np.where(new > 0, new, 1), -16))
    return np.where(step < 0, new * falling, new + step)


@shapes
@each_weighted
@pytest.mark.parametrize(("momentum", "excess"), [(0.0, 0.0), (0.6, 0.0), (0.5, 1.0)])
def test_rl_update_momentum(device, rng, domain, box, weighted, momentum, excess):
    arguments = EXAMPLES["rl_update_momentum"](rng, domain, box, weighted, momentum, excess)
    pairs = both(device, "rl_update_momentum", arguments, ["estimate", "previous"])
    new = updated(arguments)
    start, last = arguments["estimate"].astype(float), arguments["previous"].astype(float)
    step = momentum * (new - last) + excess * (new - start)
    assert (momentum == 0) or ((step < 0) & (new > 0)).any()
    for estimate, previous in zip(*pairs, strict=True):
        assert_allclose(previous, new, rtol=2 * EPS)  # two products
        # these, once with the factor 1 + momentum + excess, and five more roundings of numbers of this size; exp()
        # makes of an error of step / new one of the same size times at most 1
        atol = 8 * EPS * (new + last + start)
        assert (np.abs(estimate - ahead(new, step)) <= atol).all()
        assert ((estimate > 0) == (new > 0)).all()


@shapes
@each_weighted
def test_rl_step(device, rng, domain, box, weighted):
    arguments = EXAMPLES["rl_step"](rng, domain, box, weighted)
    pairs = both(device, "rl_step", arguments, ["work", "step"])
    new = updated(arguments)
    for work, step in zip(*pairs, strict=True):
        assert_allclose(work, new, rtol=2 * EPS)  # two products
        assert (np.abs(step - (new - arguments["estimate"])) <= 3 * EPS * (new + arguments["estimate"])).all()


@shapes
@pytest.mark.parametrize("momentum", [0.0, 0.6, 1.0])
def test_rl_predict(device, rng, domain, box, momentum):
    arguments = EXAMPLES["rl_predict"](rng, domain, box, momentum)
    pairs = both(device, "rl_predict", arguments, ["estimate", "previous"])
    new, last = arguments["work"].astype(float), arguments["previous"].astype(float)
    for estimate, previous in zip(*pairs, strict=True):
        assert_array_equal(previous, arguments["work"])
        # two sums and a product, half a unit of the last place each; a quotient and exp() downwards
        atol = 4 * EPS * (new + last)
        assert (np.abs(estimate - ahead(new, momentum * (new - last))) <= atol).all()
        assert (estimate > 0).all()


def total_variation(f, smooth, scales):
    """Sum of sqrt(|grad f|^2 + smooth^2) with forward differences; what lies beyond a face is equal to the face."""
    length = np.full(f.shape, smooth**2, f.dtype)
    for axis, scale in enumerate(scales):
        length[(slice(None),) * axis + (slice(0, -1),)] += (scale * np.diff(f, axis=axis)) ** 2
    return np.sqrt(length).sum()


def goods_roughness(f, smooth, scales):
    """4 sum |grad sqrt(f + smooth)|^2."""
    return 8 * tikhonov(np.sqrt(f + smooth), smooth, scales)


def tikhonov(f, smooth, scales):
    """Sum of |grad f|^2 / 2."""
    return sum(((scale * np.diff(f, axis=axis)) ** 2).sum() for axis, scale in enumerate(scales)) / 2


def derivative(energy, f, *constants):
    """d energy / d f by complex steps, which are exact but for terms of 1e-60: Im energy(f + i h) / h."""
    out = np.empty(f.shape)
    for index in np.ndindex(f.shape):
        stepped = f.astype(complex)
        stepped[index] += 1e-30j
        out[index] = energy(stepped, *constants).imag / 1e-30
    return out


# how many eps the denominator 1 + strength G may be off, for estimates up to 100 and the examples' constants:
# tv       6 terms up to 1 of 8 roundings each, 6 sums of numbers up to 5, times 0.4
# good     6 differences of roots up to 10, 5 sums of numbers up to 40, times 4 * 0.16 over a root of at least 1
# tikhonov 6 differences of numbers up to 100 and 5 sums of numbers up to 400, times 0.005
DENOMINATOR = {"tv_factor": 32, "good_factor": 180, "tikhonov_factor": 16}


@shapes
@each_weighted
@pytest.mark.parametrize("method", ROUGHNESS)
def test_factors_of_penalties_are_their_twins(device, rng, domain, box, weighted, method):
    arguments = EXAMPLES[method](rng, domain, box, weighted)
    [(actual, expected)] = both(device, method, arguments)
    # the inverse of a denominator of at least 1/2 doubles its error; a quotient and a product follow
    assert_allclose(actual, expected, rtol=2 * (2 * DENOMINATOR[method] + 1) * EPS)
    if not weighted and actual.size > 1000:
        assert (actual == 0.5).any()
        assert (actual == 2).any()
        assert ((actual > 0.5) & (actual < 2)).mean() > 0.5


@each_weighted
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 5, 7), (5, 1, 3), (7, 3, 1)])
@pytest.mark.parametrize(
    ("method", "energy"),
    [("tv_factor", total_variation), ("good_factor", goods_roughness), ("tikhonov_factor", tikhonov)],
)
def test_factors_hold_the_gradient_of_the_penalty(device, rng, weighted, shape, method, energy):
    arguments = EXAMPLES[method](rng, shape, shape, weighted)
    smooth = arguments.get("smooth", 0.0)
    f = arguments["estimate"].astype(float)
    gradient = derivative(energy, f, smooth, [arguments[f"scale_{axis}"] for axis in "zyx"])
    weights = arguments["weights"].astype(float) if weighted else 1.0
    exact = weights / np.clip(1 + arguments["strength"] * gradient, 0.5, 2)
    for result in both(device, method, arguments)[0]:
        assert_allclose(result, exact, rtol=(2 * DENOMINATOR[method] + 1) * EPS)


@pytest.mark.parametrize("method", ROUGHNESS)
def test_a_flat_estimate_has_no_roughness(device, rng, method):
    arguments = EXAMPLES[method](rng, *SHAPES[0])
    for value in (0.0, 3.5):
        arguments["estimate"][...] = value
        for result in both(device, method, arguments)[0]:
            assert_array_equal(result, arguments["weights"])


@pytest.mark.parametrize("method", ROUGHNESS)
def test_large_fields_are_cut_into_slabs_without_seams(rng, method):
    """Several slabs of the size that is in use, on several threads: the same bits as plane by plane by hand."""
    shape = (23, 150, 171)
    arguments = EXAMPLES[method](rng, shape, shape)
    pieces = after_twin(NumpyOps(Slabs(3)), method, arguments)["factors"]
    for z in (0, 1, 7, 11, 12, 21, 22):
        near = slice(max(z - 1, 0), z + 2)
        alone = {
            name: value[near].copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()
        }
        assert_array_equal(pieces[z], after_twin(NumpyOps(Slabs(1)), method, alone)["factors"][z - near.start])


@pytest.mark.parametrize(
    ("method", "poisoned"),
    [
        ("rl_ratio", "work"),
        ("rl_excess", "work"),
        ("rl_unmatched_factor", "work"),
        ("rl_update", "work"),
        ("rl_update_momentum", "work"),
        ("rl_step", "work"),
        ("rl_step", "estimate"),
        ("rl_predict", "work"),
        ("tv_factor", "estimate"),
        ("good_factor", "estimate"),
        ("tikhonov_factor", "estimate"),
    ],
)
def test_nan_is_not_hidden(device, rng, method, poisoned):
    arguments = EXAMPLES[method](rng, *SHAPES[0])
    if arguments.get("weights") is not None:
        arguments["weights"][0, 0, 0] = 1
    arguments[poisoned][0, 0, 0] = np.nan
    output = next(iter(arguments))
    assert np.isnan(after_kernel(device, method, arguments)[output].flat[0])
    assert np.isnan(after_twin(NumpyOps(Slabs(1)), method, arguments)[output].flat[0])


@pytest.mark.parametrize(
    ("method", "argument", "spoil"),
    [
        ("rl_ratio", "work", sparse),
        ("rl_ratio", "background_image", wide),
        ("rl_ratio", "mask", wide),
        ("rl_ratio", "mask", shorter),
        ("rl_excess", "work", wide),
        ("rl_excess", "image", wide),
        ("rl_excess", "background_image", shorter),
        ("rl_excess", "mask", shorter),
        ("rl_unmatched_factor", "work", wide),
        ("rl_unmatched_factor", "weights", shorter),
        ("rl_update", "work", shorter),
        ("rl_update", "weights", wide),
        ("rl_update_momentum", "previous", shorter),
        ("rl_step", "work", sparse),
        ("rl_step", "step", wide),
        ("rl_step", "estimate", shorter),
        ("rl_step", "weights", shorter),
        ("rl_predict", "estimate", wide),
        ("rl_predict", "previous", sparse),
        ("rl_predict", "work", shorter),
        *(
            (method, argument, spoil)
            for method in ROUGHNESS
            for argument, spoil in (("factors", wide), ("estimate", shorter), ("estimate", sparse), ("weights", wide))
        ),
    ],
)
def test_what_a_kernel_cannot_address_is_refused(device, rng, method, argument, spoil):
    arguments = EXAMPLES[method](rng, (5, 7, 12), (5, 4, 9))
    on_device = {n: device.xp.asarray(a) if isinstance(a, np.ndarray) else a for n, a in arguments.items()}
    on_device[argument] = spoil(on_device[argument])
    with pytest.raises(TypeError, match=r"must be|is needed|does not fit"):
        getattr(device.ops, method)(*on_device.values())
