"""Total variation: exact solutions, scikit-image's, the proven distance from the minimum, and the gain in noise."""

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.errors import InputError
from gpudecon.forward import Unblurred
from gpudecon.methods.total_variation import noise_level
from gpudecon.quality.metrics import nrmse
from gpudecon.recording import Conditions, problem_of
from gpudecon.simulate import expose, phantom

VOXEL_UM = (0.2, 0.08, 0.08)


def tv(image, weight="auto", **options):
    return gd.deconvolve(image, None, "tv", weight=weight, device="cpu", **options)


def functional(f, source, weight, voxel_um):
    """1/2 |f - source|^2 + weight TV(f) in float64."""
    f = f.astype(float)
    squares = 0
    for axis, v in enumerate(voxel_um):
        step = np.diff(f, axis=axis, append=np.take(f, [-1], axis)) * min(voxel_um) / v
        squares = squares + step**2
    return 0.5 * ((f - source) ** 2).sum() + weight * np.sqrt(squares).sum()


def assert_within(tolerance, restored, exact, image):
    """The root mean square distance is below this fraction of what the exact solution takes out, as promised."""
    assert np.linalg.norm(restored - exact) <= tolerance * np.linalg.norm(exact - image)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_loses_the_weight_shared_by_its_side(axis):
    """1-D: a side of n samples moves towards the other by w / n, and stays flat."""
    image = np.moveaxis(np.where(np.arange(30) < 10, 100.0, 20.0) * np.ones((5, 1)), 1, axis)
    exact = np.where(image > 50, 100 - 0.25 * 80 / 10, 20 + 0.25 * 80 / 20)
    assert_within(0.05, tv(image, 0.25, tolerance=0.05), exact, image)


def test_a_step_along_a_longer_voxel_counts_less():
    image = np.zeros((12, 6, 7))
    image[:4] = 60
    restored = tv(image, 0.5, voxel_um=(0.3, 0.1, 0.12), tolerance=0.05)
    weight = 0.5 * 60 * 0.1 / 0.3
    assert_within(0.05, restored, np.where(image > 0, 60 - weight / 4, weight / 8), image)


def test_a_disc_loses_two_weights_over_its_radius():
    """Strong & Chan, Inverse Problems 19, 2003; around it the weight is shared by what is left of the frame.

    The perimeter of a disc of voxels, by forward differences, is that of the disc to 5 %.
    """
    radius, weight = 20.0, 0.2 * 100
    y, x = np.ogrid[-48:48, -48:48]
    disc = (y**2 + x**2 < radius**2) * 100.0
    restored = tv(disc, 0.2)
    inside, outside = y**2 + x**2 < (radius - 4) ** 2, y**2 + x**2 > (radius + 4) ** 2
    assert 100 - restored[inside].mean() == pytest.approx(2 * weight / radius, rel=0.07)
    raised = weight * 2 * np.pi * radius / (disc == 0).sum()
    assert restored[outside].mean() == pytest.approx(raised, rel=0.07)


def test_a_ball_loses_three_weights_over_its_radius():
    radius, weight = 12.0, 0.2 * 100
    z, y, x = np.ogrid[-18:18, -18:18, -18:18]
    ball = (z**2 + y**2 + x**2 < radius**2) * 100.0
    inside = z**2 + y**2 + x**2 < (radius - 4) ** 2
    assert 100 - tv(ball, 0.2)[inside].mean() == pytest.approx(3 * weight / radius, rel=0.1)


@pytest.mark.parametrize("shape", [(6, 17, 22), (31, 26)])
@pytest.mark.parametrize("weight", [0.02, 0.1])
def test_it_is_scikit_image_on_cubic_voxels(rng, shape, weight):
    """Both within the distance that the duality gap proves; scikit-image's own error is far smaller."""
    restoration = pytest.importorskip("skimage.restoration", reason="scikit-image is not installed")
    image = (ndimage.gaussian_filter(rng.random(shape), 2) > 0.5) * 50.0 + rng.normal(scale=8, size=shape) + 100
    absolute = weight * np.ptp(image)
    expected = restoration.denoise_tv_chambolle(image, weight=absolute, eps=1e-9, max_num_iter=20000)
    restored = tv(image, weight, tolerance=0.01)
    removed = np.sqrt(((expected - image) ** 2).mean())
    assert np.sqrt(((restored - expected) ** 2).mean()) <= 0.01 * removed
    assert removed > 1


@pytest.mark.parametrize("tolerance", [0.1, 0.02])
def test_the_tolerance_is_kept_on_anisotropic_voxels(rng, tolerance):
    """The functional is strongly convex: |f - f*|^2 <= 2 (F(f) - F(f*)) <= 2 gap."""
    image = rng.normal(100, 10, (9, 20, 21)).astype(np.float32)
    weight, source = 0.15 * float(np.ptp(image)), image.astype(float)
    restored = tv(image, 0.15, voxel_um=(0.3, 0.1, 0.12), tolerance=tolerance)
    exact = tv(image, 0.15, voxel_um=(0.3, 0.1, 0.12), tolerance=0.005)
    allowed = 0.5 * tolerance**2 * ((restored - source) ** 2).sum()
    least = functional(exact, source, weight, (0.3, 0.1, 0.12))
    assert functional(restored, source, weight, (0.3, 0.1, 0.12)) - least <= allowed
    for _ in range(20):  # no neighbour is better
        other = exact + rng.normal(scale=0.02, size=image.shape) * rng.choice([1, 5])
        assert least < functional(other, source, weight, (0.3, 0.1, 0.12))


def test_background_is_subtracted_and_the_mean_is_kept(rng):
    image = rng.poisson(20, (6, 20, 21)).astype(np.float32)
    background = rng.random(image.shape).astype(np.float32)
    np.testing.assert_allclose(tv(image, 0.1, background=12), tv(image, 0.1) - 12, atol=1e-3)
    restored = tv(image, 0.1, background=background)
    assert restored.mean(dtype=float) == pytest.approx((image - background).mean(dtype=float), rel=1e-5)


@pytest.mark.parametrize("image", [np.full((5, 8, 9), 7.0), np.full((1, 1), 7.0), np.full((1, 30), 7.0)])
def test_a_constant_image_stays(image):
    for weight in ("auto", 0.3):
        np.testing.assert_array_equal(tv(image, weight), image)


@pytest.mark.parametrize("mean", [1.0, 3.0, 1000.0])
@pytest.mark.parametrize("masked", [False, True])
def test_noise_is_measured_beside_structure(rng, mean, masked):
    """Poisson noise of the background, although 1 % of the volume is a structure a hundred times brighter.

    To 10 %: at one photon the tails are longer than a Gaussian's, and cutting them costs 8 %.
    """
    truth = np.full((20, 64, 65), mean)
    truth[5:9, 20:30, 30:50] *= 100
    image = rng.poisson(truth).astype(np.float32)
    mask = None
    if masked:
        mask = rng.random(image.shape) > 0.02
        image[~mask] = 1e6
    model = Unblurred(get_backend("cpu"), image.shape)
    problem = problem_of(image, mask, Conditions(), gd.METHODS["fista_tv"](), model, VOXEL_UM)
    assert noise_level(problem) == pytest.approx(np.sqrt(mean), rel=0.1)


def test_a_tolerance_out_of_reach_is_said(rng):
    image = rng.normal(100, 10, (40, 41))
    with pytest.warns(gd.GpudeconWarning, match=r"not to the tolerance 1e-06"):
        restored = tv(image, 1.0, tolerance=1e-6)
    assert np.isfinite(restored).all()


@pytest.fixture(scope="module")
def psf():
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (15, 15, 15)), indexing="ij")
    array = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (2.0, 1.7, 1.7), strict=True)) / 2).astype(np.float32)
    return gd.PSF(array / array.sum(), VOXEL_UM)


@pytest.mark.parametrize("name", ["filaments", "beads", "shells", "nuclei"])
def test_denoising_lowers_the_error_at_20_photons(psf, name):
    truth = phantom(name, (24, 64, 64), VOXEL_UM, seed=3)
    image, _ = expose(truth, psf, peak_photons=20, haze_photons=2, camera=gd.Camera(), seed=5)
    assert nrmse(tv(image, voxel_um=VOXEL_UM), truth) < 0.95 * nrmse(image, truth)


def best_of(image, psf, truth, method, iterations):
    errors = []
    gd.deconvolve(
        image, psf, method, iterations=iterations, background=2, edges="periodic", device="cpu",
        callback=lambda k, f, info: errors.append(nrmse(f, truth)), divergence_every=0,
    )  # fmt: skip
    return min(errors), errors[-1]


def test_fista_tv_beats_the_best_richardson_lucy_at_20_photons(psf):
    """Whatever its number of iterations, and without knowing a good one of its own."""
    truth = phantom("nuclei", (24, 64, 64), VOXEL_UM, seed=3)
    image, _ = expose(truth, psf, peak_photons=20, haze_photons=2, camera=gd.Camera(), seed=5)
    best_rl, _ = best_of(image, psf, truth, "rl", 40)
    _, last = best_of(image, psf, truth, "fista_tv", 50)
    assert last < 0.9 * best_rl


def test_fista_tv_without_blur_is_denoising(rng):
    """A PSF of one voxel, and data whose minimum is positive: FISTA's first step is the denoising problem itself."""
    image = (ndimage.gaussian_filter(rng.random((7, 20, 21)), 2) > 0.5) * 50 + rng.normal(100, 8, (7, 20, 21))
    delta = np.ones((1, 1, 1), np.float32)
    restored = gd.deconvolve(image, delta, "fista_tv", weight=0.05, iterations=60, edges="periodic", device="cpu")
    expected = tv(image, 0.05, tolerance=0.003)
    removed = np.sqrt(((expected - image) ** 2).mean())
    assert np.sqrt(((restored - expected) ** 2).mean()) < 0.01 * removed


def test_fista_tv_reaches_the_minimum_of_its_functional(asymmetric_psf, rng):
    """Of f in 1/2 |H f - g|^2 + w TV(f), f >= 0: no neighbour is better, and much more work gains nothing."""
    shape, voxel_um = (6, 13, 14), (0.3, 0.1, 0.12)
    psf = asymmetric_psf((3, 4, 5))
    image = (rng.random(shape) * 100).astype(np.float32)
    weight = 0.02 * float(np.ptp(image))

    def blurred(f):
        shifts = ([i - p // 2 for i, p in zip(index, psf.shape, strict=True)] for index in np.ndindex(psf.shape))
        return sum(float(w) * np.roll(f, s, (0, 1, 2)) for w, s in zip(psf.ravel(), shifts, strict=True))

    def value(f):
        fit = 0.5 * ((blurred(f.astype(float)) - image) ** 2).sum()
        return fit + functional(f, f.astype(float), weight, voxel_um)

    def restored(**options):
        return gd.deconvolve(
            image, psf, "fista_tv", weight=0.02, edges="periodic", device="cpu", voxel_um=voxel_um, **options
        )

    found, best = restored(iterations=200), restored(iterations=500, inner_iterations=10)
    assert value(found) < 1.001 * value(best)
    assert best.min() == 0
    for _ in range(20):
        assert value(best) < value(np.maximum(best + rng.normal(size=shape), 0))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("tv", {"weight": 0.0}, "tv: weight is 0.0; it must be positive, or 'auto'"),
        ("tv", {"weight": float("inf")}, "weight is inf"),
        ("tv", {"tolerance": 1.0}, "tolerance is 1.0; it must be between 0 and 1"),
        ("fista_tv", {"weight": -1.0}, "fista_tv: weight is -1.0"),
        ("fista_tv", {"iterations": 0}, "iterations is 0"),
        ("fista_tv", {"inner_iterations": 0}, "inner_iterations is 0"),
    ],
)
def test_bad_options_are_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        gd.METHODS[method](**options)
