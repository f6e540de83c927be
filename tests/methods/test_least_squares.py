"""Landweber, Gold and ICTM against float64 references, an explicit matrix, and the conditions of an optimum."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import nnls

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.errors import InputError
from gpudecon.forward import EDGES, ForwardModel
from gpudecon.methods import make_method
from gpudecon.methods.ictm import least_risk_gamma
from gpudecon.quality.metrics import nrmse
from gpudecon.recording import Conditions, problem_of
from gpudecon.simulate import expose, phantom

ITERATIVE = ["landweber", "gold", "ictm", "fista_tv"]
SHAPES = [((7, 12, 15), (3, 4, 5)), ((17, 22), (4, 5))]


def periodic(psf, shape):
    """(H, H^T) as functions of float64 arrays, by sums of shifted copies."""
    ndim = len(shape)

    def apply(f, sign):
        return sum(
            float(psf[index])
            * np.roll(f, [sign * (i - p // 2) for i, p in zip(index, psf.shape, strict=True)], range(ndim))
            for index in np.ndindex(psf.shape)
        )

    return lambda f: apply(f, 1), lambda f: apply(f, -1)


@pytest.fixture
def recorded(asymmetric_psf, rng):
    """A function (shape, psf shape) -> (image, PSF, background image, mask), some of the image below the background."""

    def make(shape, psf_shape):
        image = (rng.random(shape) * 50 + 5).astype(np.float32)
        background = (rng.random(shape) * 10).astype(np.float32)
        return image, asymmetric_psf(psf_shape), background, rng.random(shape) > 0.1

    return make


def start(excess, mask):
    return np.full(excess.shape, np.maximum(excess, 0)[mask].mean())


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("nonnegative", [True, False])
def test_landweber_is_its_formula(recorded, shape, psf_shape, nonnegative):
    image, psf, background, mask = recorded(shape, psf_shape)
    blur, adjoint = periodic(psf, shape)
    excess = image.astype(float) - background
    f = start(excess, mask)
    for _ in range(10):
        f = f + 1.2 * adjoint(mask * (excess - blur(f)))
        f = np.maximum(f, 0) if nonnegative else f
    restored = gd.deconvolve(
        image, psf, "landweber", iterations=10, step=1.2, nonnegative=nonnegative,
        background=background, mask=mask, edges="periodic", device="cpu",
    )  # fmt: skip
    assert (f.min() < 0) != nonnegative
    np.testing.assert_allclose(restored, f, rtol=0, atol=1e-5 * np.abs(f).max())


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_gold_is_its_formula(recorded, shape, psf_shape):
    image, psf, background, mask = recorded(shape, psf_shape)
    image[..., : shape[-1] // 2] = 0  # so that the adjoint of what exceeds the background is negative there
    blur, adjoint = periodic(psf, shape)
    excess = image.astype(float) - background
    seen = adjoint(mask * excess)
    assert (seen < 0).any()
    f = start(excess, mask)
    for _ in range(10):
        f = f * np.maximum(seen, 0) / adjoint(mask * blur(f))
    restored = gd.deconvolve(
        image, psf, "gold", iterations=10, background=background, mask=mask, edges="periodic", device="cpu"
    )
    np.testing.assert_allclose(restored, f, rtol=0, atol=1e-5 * f.max())


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_ictm_without_its_constraint_is_the_fourier_solution(recorded, shape, psf_shape):
    """conj(H) G / (|H|^2 + gamma), in float64; the condition number is at most 1 / gamma, so 60 steps are plenty."""
    image, psf, _, _ = recorded(shape, psf_shape)
    placed = np.zeros(shape)
    placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, shape, strict=True)))] = psf
    otf = np.fft.fftn(placed)
    expected = np.fft.ifftn(otf.conj() * np.fft.fftn(image.astype(float) - 8) / (np.abs(otf) ** 2 + 0.02)).real
    restored = gd.deconvolve(
        image, psf, "ictm", gamma=0.02, nonnegative=False, iterations=60, background=8, edges="periodic", device="cpu"
    )
    assert expected.min() < 0
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("gamma", [0.0, 0.001, 0.1])
@pytest.mark.parametrize("nonnegative", [True, False])
def test_ictm_never_raises_its_functional(recorded, gamma, nonnegative):
    image, psf, background, mask = recorded(*SHAPES[0])
    blur, _ = periodic(psf, image.shape)
    excess = image.astype(float) - background
    values = []

    def callback(k, estimate, info):
        f = estimate.astype(float)
        values.append(((mask * (blur(f) - excess)) ** 2).sum() + gamma * (f**2).sum())

    gd.deconvolve(
        image, psf, "ictm", gamma=gamma, nonnegative=nonnegative, iterations=60, background=background, mask=mask,
        edges="periodic", device="cpu", callback=callback, divergence_every=1,
    )  # fmt: skip
    rounding = 1e-6 * (excess**2).sum()
    assert (np.diff(values) <= rounding).all()
    assert values[-1] < 0.95 * values[0]


def blurring_matrix(shape, psf, domain):
    """(A, places): the image of every voxel of a periodic domain that can send light into it, and where these are.

    The image is the corner of the domain at index 0.
    """
    columns = {}
    for voxel in np.ndindex(shape):
        for index in np.ndindex(psf.shape):
            offset = zip(voxel, index, psf.shape, domain, strict=True)
            place = tuple((v - (i - p // 2)) % n for v, i, p, n in offset)
            columns.setdefault(place, np.zeros(shape))[voxel] += psf[index]
    return np.stack([column.ravel() for column in columns.values()], axis=1), list(columns)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("landweber", {"iterations": 10000, "step": 1.9}),
        ("gold", {"iterations": 2000}),
        ("ictm", {"iterations": 200, "gamma": 0.0}),
        ("fista_tv", {"iterations": 500, "weight": 1e-7}),
    ],
)
@pytest.mark.parametrize("edges", ["periodic", "extend"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_limit_is_that_of_nnls(asymmetric_psf, rng, method, options, edges, masked):
    """scipy.optimize.nnls (Lawson & Hanson) on an explicit matrix of the whole domain, and Karush, Kuhn and Tucker.

    With periodic edges and all voxels measured the solution is unique.  Voxels outside a frame that send little light
    into it converge slowly, so that there and behind a mask only the functional is compared.
    """
    shape = (1, 6, 7)
    psf = 0.3 * asymmetric_psf((1, 3, 4))
    psf[0, 1, 2] += 0.7  # little blur: every method gets there in reasonable time
    image = (rng.random(shape) * 20).astype(np.float32)
    mask = rng.random(shape) > 0.2 if masked else None
    made = make_method(method, options)
    model = ForwardModel(get_backend("cpu", threads=1), shape, psf, edges)
    problem = problem_of(image, mask, Conditions(6.0), made, model, (1.0, 1.0, 1.0))
    for estimate in made.iterate(problem):
        domain = estimate
    assert np.isfinite(domain).all()

    matrix, places = blurring_matrix(shape, psf, domain.shape)
    measured = np.ones(image.size) if mask is None else mask.ravel().astype(float)
    matrix *= measured[:, None]
    excess = measured * (image.astype(float).ravel() - 6)
    f = np.array([domain[place] for place in places], float)
    best, residual = nnls(matrix, excess)
    assert residual > 1, "the constraint is at work"
    assert f.min() >= 0
    assert np.linalg.norm(matrix @ f - excess) < 1.01 * residual
    if edges == "periodic" and not masked:
        scale = best.max()
        np.testing.assert_allclose(f, best, rtol=0, atol=1e-3 * scale)
        gradient = matrix.T @ (matrix @ f - excess)
        assert gradient.min() > -1e-3 * scale
        assert np.abs(gradient[f > 0.01 * scale]).max() < 1e-3 * scale


@pytest.fixture
def specimen(asymmetric_psf, rng):
    """(image, truth, PSF): blobs under a wide PSF, 100 photons, background 5."""
    truth = ndimage.gaussian_filter((rng.random((12, 40, 41)) > 0.998) * 1.0, 1.0)
    psf = asymmetric_psf((5, 7, 8))
    truth *= 100 / ndimage.convolve(truth, psf).max()
    image = rng.poisson(ndimage.convolve(truth, psf, mode="nearest") + 5).astype(np.float32)
    return image, truth, psf


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("edges", EDGES)
def test_masked_voxels_do_no_harm(specimen, rng, method, edges):
    """1 % hot voxels, as bright as ten times the brightest: left out, they cost little; left in, nearly everything."""
    image, truth, psf = specimen
    cold = rng.random(image.shape) > 0.01
    spoilt = np.where(cold, image, 1000).astype(np.float32)
    arguments = {"background": 5, "edges": edges, "device": "cpu", "iterations": 15}
    clean, masked, hot = (
        nrmse(gd.deconvolve(data, psf, method, mask=mask, **arguments), truth)
        for data, mask in ((image, None), (spoilt, cold), (spoilt, None))
    )
    assert clean < nrmse(image, truth)
    assert masked < 1.1 * clean
    assert hot > 1.5 * masked


def test_ictm_measures_its_gamma_past_masked_voxels(specimen, rng):
    image, _, psf = specimen
    made, model = gd.METHODS["ictm"](), ForwardModel(get_backend("cpu"), image.shape, psf, "extend")
    gammas = [
        least_risk_gamma(problem_of(image, mask, Conditions(5.0), made, model, (1.0, 1.0, 1.0)))
        for mask in (None, rng.random(image.shape) > 0.05)
    ]
    assert 0.5 < gammas[1] / gammas[0] < 2


@pytest.mark.parametrize("method", ITERATIVE)
def test_below_the_background_everything_ends_at_zero(asymmetric_psf, method):
    image = np.full((5, 12, 13), 3.0, np.float32)
    options = {"gamma": 0.01} if method == "ictm" else {}
    restored = gd.deconvolve(image, asymmetric_psf((3, 4, 5)), method, background=7.0, device="cpu", **options)
    np.testing.assert_allclose(restored, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("landweber", {"step": 2.0}, "step is 2.0; it must be above 0 and below 2"),
        ("landweber", {"step": 0.0}, "step is 0.0"),
        ("landweber", {"iterations": 0}, "iterations is 0"),
        ("gold", {"iterations": 0}, "iterations is 0"),
        ("ictm", {"iterations": 0}, "iterations is 0"),
        ("ictm", {"gamma": -1.0}, "gamma is -1.0; it must be 0 or positive, or 'auto'"),
        ("ictm", {"gamma": float("nan")}, "gamma is nan"),
    ],
)
def test_bad_options_are_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        gd.METHODS[method](**options)


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.filterwarnings("ignore:.*still falling at the limit")
def test_stop_rules_end_between_the_first_and_the_last_iteration(specimen, method):
    image, truth, psf = specimen
    arguments = {"background": 5, "edges": "periodic", "device": "cpu", "iterations": 60}
    errors, chosen = [], []

    def callback(k, estimate, info):
        errors.append(nrmse(estimate, truth))
        chosen.append(info.choice)

    gd.deconvolve(image, psf, method, stop="auto", callback=callback, divergence_every=0, **arguments)
    assert 1 <= len(errors) == chosen[-1].iterations <= 60
    assert errors[-1] < nrmse(image, truth)


@pytest.mark.parametrize(("method", "option"), [("wiener", "noise_to_signal"), ("ictm", "gamma")])
@pytest.mark.parametrize("name", ["shells", "nuclei"])
def test_auto_is_near_the_best_constant_at_20_photons(method, option, name):
    """Most frequencies that the PSF passes hold noise alone: what scatters above its mean must not count as signal."""
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (15, 15, 15)), indexing="ij")
    psf = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (2.0, 1.7, 1.7), strict=True)) / 2).astype(np.float32)
    truth = phantom(name, (24, 64, 64), (0.2, 0.08, 0.08), seed=3)
    known = gd.PSF(psf / psf.sum(), (0.2, 0.08, 0.08))
    image, _ = expose(truth, known, peak_photons=20, haze_photons=2, camera=gd.Camera(), seed=5)

    def error(**options):
        return nrmse(
            gd.deconvolve(image, known, method, background=2, device="cpu", edges="periodic", **options), truth
        )

    assert error() < 1.1 * min(error(**{option: 10.0**-e}) for e in (0, 0.5, 1, 1.5, 2, 3))
