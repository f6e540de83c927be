"""Each kernel computes what its NumPy twin computes, writes all of its output and nothing else."""

from itertools import chain, product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpudecon.backend.cuda import KERNELS, CudaOps
from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import Slabs

from .examples import (
    EXAMPLES,
    PITCHED,
    PIXELS,
    SHAPES,
    after_twin,
    load_extended,
    multiply_otf,
    poisson_divergence,
    radial_expand,
    regularized_filter,
    store_cropped,
)

EPS = np.finfo(np.float32).eps
shapes = pytest.mark.parametrize(("domain", "box"), SHAPES)
each_type = pytest.mark.parametrize("dtype", PIXELS)


def after_kernel(device, method, arguments):
    """The arguments as the kernel leaves them; every pitched array has a pitch of its own."""
    guarded = {
        name: device.guarded(value, pad=position + 1 if name in PITCHED else 0)
        for position, (name, value) in enumerate(arguments.items())
        if isinstance(value, np.ndarray)
    }
    getattr(device.ops, method)(*(guarded[name].array if name in guarded else arguments[name] for name in arguments))
    return {name: guarded[name].read() for name in guarded}


def both(device, method, arguments, written=None):
    """What kernel and twin write, in pairs: the first argument, or those named."""
    actual = after_kernel(device, method, arguments)
    expected = after_twin(NumpyOps(Slabs(1)), method, arguments)
    written = written or [next(iter(arguments))]
    for name in set(actual) - set(written):
        assert_array_equal(actual[name], arguments[name], err_msg=f"{method} wrote {name}")
    return [(actual[name], expected[name]) for name in written]


@shapes
@each_type
def test_load_extended(device, rng, domain, box, dtype):
    arguments = load_extended(rng, domain, box, dtype)
    [(actual, expected)] = both(device, "load_extended", arguments)
    # three interpolations of three roundings each, in numbers of up to twice the largest pixel
    largest = np.abs(arguments["image"].astype(np.float64)).max()
    assert_allclose(actual, expected, rtol=0, atol=3 * 3 * 2 * EPS * largest)
    nz, ny, nx = box
    assert_array_equal(actual[:nz, :ny, :nx], arguments["image"])


def test_load_extended_by_its_formula(device, rng):
    domain, box = (9, 7, 11), (2, 4, 10)
    arguments = load_extended(rng, domain, box, "float32")
    image = arguments["image"].astype(np.float64)

    def mirrored(i, n):
        while not 0 <= i < n:
            i = -1 - i if i < 0 else 2 * n - 1 - i
        return i

    def terms(i, n, length):
        if i < n:
            return [(i, 1.0)]
        fade = (1 - np.cos(np.pi * (i - n + 0.5) / (length - n))) / 2
        return [(mirrored(i, n), 1 - fade), (mirrored(i - length, n), fade)]

    expected = np.empty(domain)
    for index in np.ndindex(domain):
        along = [terms(*axis) for axis in zip(index, box, domain, strict=True)]
        expected[index] = sum(
            wz * wy * wx * image[z, y, x] for z, wz in along[0] for y, wy in along[1] for x, wx in along[2]
        )
    atol = 3 * 4 * 2 * EPS * image.max()  # as above, and one more rounding for each weight
    assert_allclose(after_kernel(device, "load_extended", arguments)["work"], expected, rtol=0, atol=atol)
    assert_allclose(after_twin(NumpyOps(Slabs(1)), "load_extended", arguments)["work"], expected, rtol=0, atol=atol)


@shapes
@pytest.mark.parametrize("conjugate", [False, True])
def test_multiply_otf(device, rng, domain, box, conjugate):
    [(actual, expected)] = both(device, "multiply_otf", multiply_otf(rng, domain, box, conjugate))
    assert_allclose(actual, expected, rtol=4 * EPS)  # of the modulus: two products and a sum on either side


@shapes
@pytest.mark.parametrize(("noise_to_signal", "gamma"), [(0.01, 0.3), (0.0, 0.3), (0.01, 0.0), (0.0, 0.0)])
def test_regularized_filter(device, rng, domain, box, noise_to_signal, gamma):
    arguments = regularized_filter(rng, domain, box, noise_to_signal, gamma)
    [(actual, expected)] = both(device, "regularized_filter", arguments)
    assert_allclose(actual, expected, rtol=16 * EPS)  # about ten operations without cancellation, and 1 / scale
    assert_array_equal(actual[arguments["otf"] == 0], 0)


def test_regularized_filter_where_nothing_can_be_restored(device, rng):
    arguments = regularized_filter(rng, *SHAPES[0], noise_to_signal=0.0, gamma=0.0)
    arguments["otf"][0] = 1e-24  # |H|^2 is 1.5e-42: not 0, but less than any normal number
    [(actual, expected)] = both(device, "regularized_filter", arguments)
    assert_array_equal(actual[0], 0)
    assert_array_equal(expected[0], 0)


@pytest.mark.parametrize(
    ("dtype", "full", "domain", "box"),  # on the host each of 256 threads waits for all others at every barrier
    [(*known, *SHAPES[(i + k) % 4]) for k in range(2) for i, known in enumerate(product(PIXELS, [False, True]))],
)
def test_poisson_divergence(device, rng, domain, box, dtype, full):
    from scipy.special import kl_div

    arguments = poisson_divergence(rng, domain, box, dtype, full)
    [(actual, expected)] = both(device, "poisson_divergence", arguments)
    nz, ny, nx = box
    image = arguments["image"].astype(np.float64)
    model = arguments["work"][:nz, :ny, :nx].astype(np.float64) - 1.5
    if full:
        model += arguments["background_image"]
    model = np.maximum(model, 0.25)
    if full:  # what is not measured adds nothing, as where image and model are the same
        model[arguments["mask"] == 0] = image[arguments["mask"] == 0]
    # each term carries some roundings of its parts: m, g, and g log(g / m), which kl_div(g, m) + g bounds
    parts = model + image + np.abs(kl_div(image, model) + image - model)
    atol = 4 * EPS * parts.sum(axis=2)
    assert (np.abs(actual - expected) <= atol).all()
    assert (np.abs(actual - kl_div(image, model).sum(axis=2)) <= atol).all()
    assert_array_equal(after_kernel(device, "poisson_divergence", arguments)["rows"], actual)


@pytest.mark.parametrize("method", ["poisson_divergence", "inner_product", "tv_gap"])
def test_rows_of_a_tall_image_fit_into_the_grid(rng, method):
    """2^31 - 1 blocks along x, but 65535 along y and z (CUDA C++ Programming Guide, compute capabilities)."""
    grids = []
    ops = CudaOps(lambda kernel, extent, _: grids.append(KERNELS[kernel].grid(extent)))
    getattr(ops, method)(*EXAMPLES[method](rng, (1, 70000, 4), (1, 70000, 3)).values())
    [(x, y, z)] = grids
    assert (x, y, z) == (70000, 1, 1)


def test_poisson_divergence_of_black_pixels_under_a_bright_model(device):
    arguments = {
        "rows": np.full((1, 2), np.nan),
        "work": np.full((1, 2, 3), 1e15, np.float32),
        "image": np.zeros((1, 2, 3), np.float32),
        "background": 0.0,
        "background_image": None,
        "mask": None,
        "floor": 1.0,
    }
    for rows in chain(*both(device, "poisson_divergence", arguments)):
        assert_allclose(rows, 3e15, rtol=EPS)


@shapes
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("scale", [1.0, 300.5])
def test_store_cropped(device, rng, domain, box, dtype, scale):
    [(actual, expected)] = both(device, "store_cropped", store_cropped(rng, domain, box, dtype, scale))
    assert_array_equal(actual, expected)  # one difference, one product, both rounded alike


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_store_cropped_rounds_half_to_even_and_clips(device, dtype):
    source = np.array([[[0.5, 1.5, 2.5, 254.5, -0.5, -7.0, 1e9]]], np.float32)
    arguments = {"out": np.full(source.shape, 99, dtype), "source": source, "scale": 1.0, "offset": 0.0}
    for out in chain(*both(device, "store_cropped", arguments)):
        assert out.tolist() == [[[0, 2, 2, 254, 0, 0, np.iinfo(dtype).max]]]


@shapes
@pytest.mark.parametrize("centre", [(0.0, 0.0), (1.25, 0.0), (0.5, 2.125)])
def test_radial_expand(device, rng, domain, box, centre):
    arguments = radial_expand(rng, domain, box, centre)
    [(actual, expected)] = both(device, "radial_expand", arguments)
    # four products of weights up to 1 with five roundings each, and three sums
    largest = np.abs(arguments["table"]).max()
    assert_allclose(actual, expected, rtol=0, atol=4 * 8 * EPS * largest)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_radial_expand_is_exact_for_cubics(device, power):
    rho = np.hypot((np.arange(6) * 0.3)[:, None], np.arange(9) * 0.7)
    table = np.arange(9.0) ** power
    arguments = {
        "out": np.full((1, 6, 9), np.nan, np.float32),
        "table": table.astype(np.float32)[None],
        "centre_y": 0.0,
        "centre_x": 0.0,
        "pitch_y": 0.3,
        "pitch_x": 0.7,
    }
    # below the first sample the profile is taken to be even, which odd powers are not
    known = rho >= power % 2
    for out in chain(*both(device, "radial_expand", arguments)):
        assert_allclose(out[0][known], (rho**power)[known], rtol=0, atol=32 * EPS * table.max())


def test_radial_expand_refuses_a_short_table(device, rng):
    arguments = radial_expand(rng, (2, 5, 7), (2, 5, 7))
    with pytest.raises(TypeError, match="does not reach"):
        device.ops.radial_expand(*{**arguments, "table": arguments["table"][:, :-1].copy()}.values())


@pytest.mark.parametrize(
    ("method", "poisoned"),
    [
        ("load_extended", "image"),
        ("poisson_divergence", "work"),
    ],
)
def test_nan_is_not_hidden(device, rng, method, poisoned):
    arguments = EXAMPLES[method](rng, *SHAPES[0], dtype="float32")
    arguments[poisoned][0, 0, 0] = np.nan
    actual = after_kernel(device, method, arguments)
    expected = after_twin(NumpyOps(Slabs(1)), method, arguments)
    output = next(iter(arguments))
    assert np.isnan(actual[output].flat[0])
    assert np.isnan(expected[output].flat[0])


def wide(array):
    return array.astype(np.float64)


def sparse(array):
    return array.repeat(2, axis=-1)[..., ::2]


def shorter(array):
    return array[:-1].copy()


@pytest.mark.parametrize(
    ("method", "argument", "spoil"),
    [
        ("load_extended", "work", wide),
        ("load_extended", "image", wide),
        ("load_extended", "image", sparse),
        ("load_extended", "work", shorter),
        ("multiply_otf", "otf", shorter),
        ("multiply_otf", "spectrum", sparse),
        ("regularized_filter", "laplacian_x", wide),
        ("regularized_filter", "laplacian_z", shorter),
        ("poisson_divergence", "rows", shorter),
        ("poisson_divergence", "background_image", shorter),
        ("radial_expand", "out", wide),
        ("radial_expand", "table", shorter),
        ("store_cropped", "source", shorter),
        ("store_cropped", "out", lambda out: out.astype(np.int16)),
    ],
)
def test_what_a_kernel_cannot_address_is_refused(device, rng, method, argument, spoil):
    arguments = EXAMPLES[method](rng, (5, 7, 12), (5, 4, 9))
    on_device = {n: device.xp.asarray(a) if isinstance(a, np.ndarray) else a for n, a in arguments.items()}
    on_device[argument] = spoil(on_device[argument])
    with pytest.raises(TypeError, match=r"must be|is needed|does not fit|writes"):
        getattr(device.ops, method)(*on_device.values())
