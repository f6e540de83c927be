"""The forward model against direct sums, and the laws it must keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon.backend.numpy import NumpyBackend
from gpudecon.errors import InputError
from gpudecon.forward import EDGES, ForwardModel, wrapped

SHAPES = [
    ((5, 12, 17), (3, 5, 7)),  # odd PSF, smaller
    ((6, 11, 14), (4, 6, 8)),  # even PSF
    ((4, 9, 10), (9, 7, 23)),  # larger than the image on two axes
    ((1, 21, 16), (1, 6, 5)),  # a plane
]


@pytest.fixture(params=["scipy", "ducc0"])
def backend(request):
    if request.param == "ducc0":
        pytest.importorskip("ducc0", reason="ducc0 (extra cpu) is not installed")
    return NumpyBackend(threads=2, fft=request.param)


def direct_blur(obj, psf, origin, image_shape):
    """sum_j psf[c + i - j] obj[j] by loops over the PSF, float64; ``origin`` is the object's index of image voxel 0."""
    out = np.zeros(image_shape)
    centre = [p // 2 for p in psf.shape]
    for offset in np.ndindex(psf.shape):
        start = [o - (k - c) for o, k, c in zip(origin, offset, centre, strict=True)]
        box = tuple(slice(s, s + n) for s, n in zip(start, image_shape, strict=True))
        out += float(psf[offset]) * obj[box]
    return out


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_extended_blur_is_the_direct_sum_over_the_larger_object(backend, asymmetric_psf, rng, shape, psf_shape):
    psf = asymmetric_psf(psf_shape)
    model = ForwardModel(backend, shape, psf, "extend")
    before = [p - 1 - p // 2 for p in psf_shape]
    after = [p // 2 for p in psf_shape]
    obj = rng.random([n + b + a for n, b, a in zip(shape, after, before, strict=True)])
    # the model keeps what lies before index 0 at the end of its periodic domain
    estimate = model.empty()
    estimate[...] = 0
    places = np.meshgrid(
        *(np.arange(-b, n + a) % d for n, b, a, d in zip(shape, before, after, model.domain, strict=True)),
        indexing="ij",
    )
    estimate[tuple(places)] = obj
    expected = direct_blur(obj, psf, before, shape)
    np.testing.assert_allclose(model.crop(model.blur(estimate)), expected, atol=3e-6)


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_periodic_blur_is_the_direct_sum_with_opposite_faces_touching(backend, asymmetric_psf, rng, shape, psf_shape):
    psf = asymmetric_psf(psf_shape)
    model = ForwardModel(backend, shape, psf, "periodic")
    assert model.domain == shape
    obj = rng.random(shape)
    estimate = model.empty()
    estimate[...] = obj
    expected = np.zeros(shape)
    for offset in np.ndindex(psf_shape):
        shift = [k - p // 2 for k, p in zip(offset, psf_shape, strict=True)]
        expected += float(psf[offset]) * np.roll(obj, shift, axis=(0, 1, 2))
    np.testing.assert_allclose(model.blur(estimate), expected, atol=3e-6)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_adjoint(backend, asymmetric_psf, rng, edges, shape, psf_shape):
    """<M H x, y> = <x, H^T M y> for every x on the domain and y on the data."""
    model = ForwardModel(backend, shape, asymmetric_psf(psf_shape), edges)
    x = rng.random(model.domain, np.float32)
    y = rng.random(model.data_shape, np.float32)
    data = tuple(slice(0, n) for n in model.data_shape)
    estimate = model.empty()
    estimate[...] = x
    left = np.vdot(model.blur(estimate)[data].astype(float), y.astype(float))
    model.work[...] = 0
    model.work[data] = y
    right = np.vdot(x.astype(float), model.adjoint().astype(float))
    assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_delta_stays_at_its_index(backend, edges, shape, psf_shape):
    delta = np.zeros(psf_shape, np.float32)
    delta[tuple(p // 2 for p in psf_shape)] = 1
    model = ForwardModel(backend, shape, delta, edges)
    estimate = model.empty()
    estimate[...] = 0
    point = tuple(n // 3 for n in shape)
    estimate[point] = 1
    blurred = model.crop(model.blur(estimate))
    assert np.unravel_index(blurred.argmax(), blurred.shape) == point
    assert blurred[point] == pytest.approx(1, abs=1e-6)


def test_sensitivity_is_the_light_that_reaches_the_image(backend, asymmetric_psf):
    shape, psf = (5, 9, 8), asymmetric_psf((3, 4, 5))
    model = ForwardModel(backend, shape, psf, "extend")
    for point in [(0, 0, 0), (2, 4, 4), (4, 8, 7), (-1, -1, 0), (5, 9, 8)]:
        received = 0.0
        for offset in np.ndindex(psf.shape):
            reached = [p + k - s // 2 for p, k, s in zip(point, offset, psf.shape, strict=True)]
            received += float(psf[offset]) * all(0 <= r < n for r, n in zip(reached, shape, strict=True))
        expected = 1 / received if received > 0.01 else 0.0
        assert model.weights[point] == pytest.approx(expected, rel=1e-4), point


@given(
    psf_shape=st.tuples(*[st.integers(1, 9)] * 3), domain=st.tuples(*[st.integers(1, 7)] * 3), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_wrapped_keeps_the_sum_and_the_centre(psf_shape, domain, seed):
    psf = np.random.default_rng(seed).random(psf_shape, np.float32)
    placed = on_domain(psf, domain)
    assert placed.sum() == pytest.approx(psf.sum(), rel=1e-5)
    expected = np.zeros(domain)
    for index in np.ndindex(psf_shape):
        expected[tuple((i - p // 2) % d for i, p, d in zip(index, psf_shape, domain, strict=True))] += psf[index]
    np.testing.assert_allclose(placed, expected, rtol=1e-5)


def on_domain(psf, domain):
    """The PSF placed on a domain of zeros."""
    folded, places = wrapped(psf, domain)
    placed = np.zeros(domain)
    placed[np.ix_(*places)] = folded
    return placed


def test_planes_that_are_not_needed_are_not_trusted(backend, asymmetric_psf, rng):
    """The shortcut for planes that are zero or unused gives what the full transforms give, whatever was in memory."""
    shape, psf = (5, 12, 9), asymmetric_psf((6, 5, 4))
    model = ForwardModel(backend, shape, psf, "extend")
    estimate = model.empty()
    estimate[...] = rng.random(model.domain, np.float32)
    model.spectrum[...] = np.nan
    blurred = model.crop(model.blur(estimate)).copy()
    full = np.fft.irfftn(
        np.fft.rfftn(estimate) * np.fft.rfftn(on_domain(psf, model.domain)), s=model.domain, axes=(0, 1, 2)
    )
    np.testing.assert_allclose(blurred, full[tuple(slice(0, n) for n in shape)], atol=3e-6)


def test_unknown_edges():
    with pytest.raises(InputError, match=r"'wrap'.*extend, reflect, periodic"):
        ForwardModel(NumpyBackend(1), (3, 4, 5), np.ones((1, 1, 1), np.float32), "wrap")
