"""Masks, backgrounds and cameras: what is no measurement has no influence, and what is known is taken into account."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm, poisson

import gpudecon as gd
from gpudecon.errors import InputError
from gpudecon.forward import EDGES
from gpudecon.methods.noise import snr_of
from gpudecon.methods.record import Record
from gpudecon.pilot import survey
from gpudecon.recording import Conditions, problem_of

COMBINATIONS = [
    {},
    {"acceleration": "shb", "start": "image"},
    {"acceleration": "biggs", "back_projector": "wb"},
    {"back_projector": "omw", "start": "lowpass", "tv": 0.01},
    {"start": "wiener", "goods_roughness": 0.01},
]
each_edge = pytest.mark.parametrize("edges", EDGES)


def blurred(truth, psf):
    """Periodic convolution in float64, by shifted copies."""
    return sum(
        float(psf[i]) * np.roll(truth, [a - p // 2 for a, p in zip(i, psf.shape, strict=True)], range(truth.ndim))
        for i in np.ndindex(psf.shape)
    )


def adjoint(field, psf):
    return sum(
        float(psf[i]) * np.roll(field, [p // 2 - a for a, p in zip(i, psf.shape, strict=True)], range(field.ndim))
        for i in np.ndindex(psf.shape)
    )


@pytest.fixture
def smooth(asymmetric_psf, rng):
    """(image without noise, truth, PSF) of an object that varies slowly, on odd unequal sizes."""
    truth = 100 + 60 * ndimage.gaussian_filter(rng.normal(size=(9, 25, 22)), 3, mode="wrap") * 3**1.5
    psf = asymmetric_psf((4, 5, 6))
    return blurred(truth, psf).astype(np.float32), truth, psf


@each_edge
@pytest.mark.parametrize("options", COMBINATIONS)
def test_what_lies_under_a_mask_has_no_influence(rng, smooth, edges, options):
    image, _, psf = smooth
    image = rng.poisson(image).astype(np.float32)
    mask = rng.random(image.shape) > 0.1
    given = {"iterations": 8, "edges": edges, "background": 3.0, "device": "cpu", "mask": mask, **options}
    once = gd.deconvolve(image, psf, **given)
    for value in (np.nan, np.inf, -1e20, 0.0, 1e25):
        assert (gd.deconvolve(np.where(mask, image, np.float32(value)), psf, **given) == once).all()


@each_edge
@pytest.mark.parametrize("options", COMBINATIONS)
def test_hidden_voxels_are_found_from_their_surroundings(rng, smooth, edges, options):
    """A tenth of the voxels at random, and a hole of 1 x 3 x 3, in an image without noise."""
    image, truth, psf = smooth
    mask = rng.random(image.shape) > 0.1
    mask[4, 11:14, 9:12] = False
    restored = gd.deconvolve(
        np.where(mask, image, 0), psf, iterations=20, edges=edges, mask=mask, device="cpu", **options
    )
    inside = (slice(2, -2), slice(3, -3), slice(3, -3))  # with "extend" and "reflect" the object beyond is not known
    off = np.abs(restored - truth)[inside]
    hidden, seen = off[~mask[inside]], off[mask[inside]]
    deviation = truth.std()
    assert np.sqrt((hidden**2).mean()) < 0.5 * deviation
    assert np.sqrt((hidden**2).mean()) < 2 * np.sqrt((seen**2).mean()) + 0.02 * truth.mean()


@each_edge
def test_saturated_voxels_are_as_masked(smooth, edges):
    image, _, psf = smooth
    clipped = np.minimum(image, np.float32(np.quantile(image, 0.95)))
    level = float(clipped.max())
    options = {"iterations": 10, "edges": edges, "device": "cpu"}
    restored = gd.deconvolve(clipped, psf, saturation=level, **options)
    assert (restored == gd.deconvolve(clipped, psf, mask=clipped < level, **options)).all()
    both = np.ones(image.shape, bool)
    both[0] = False
    given = gd.deconvolve(clipped, psf, saturation=level, mask=both, **options)
    assert (given == gd.deconvolve(clipped, psf, mask=both & (clipped < level), **options)).all()
    naive = gd.deconvolve(clipped, psf, **options)
    saturated = clipped == level
    full = gd.deconvolve(image, psf, **options)
    assert np.abs(restored - full)[saturated].mean() < np.abs(naive - full)[saturated].mean()


def test_the_background_of_a_masked_image_is_that_of_its_measured_voxels(rng, asymmetric_psf):
    """Hidden voxels are stored as 0, which is not how dark the image is."""
    image = rng.poisson(100 + 50 * (rng.random((9, 24, 25)) < 0.02)).astype(np.float32)
    mask = np.ones(image.shape, bool)
    mask[:, 5:12, 7:18] = False
    psf = asymmetric_psf((3, 3, 3))
    options = {"iterations": 5, "device": "cpu", "edges": "periodic"}
    restored = gd.deconvolve(np.where(mask, image, 0), psf, mask=mask, background="auto", **options)
    known = gd.deconvolve(image, psf, mask=mask, background=94.0, **options)
    # smoothing over 27 voxels leaves a deviation of 10 / sqrt(27) = 1.9, so the 1st percentile lies at 100 - 2.3 * 1.9
    assert restored[mask].mean() == pytest.approx(known[mask].mean(), abs=2)
    single = np.zeros(image.shape, bool)
    single[::2, ::2, ::2] = True  # no mean is whole: the measured voxels themselves
    lone = gd.deconvolve(image, psf, mask=single, background="auto", **options)
    assert lone[single].mean() == pytest.approx((image[single] - np.percentile(image[single], 1)).mean(), rel=0.1)


@each_edge
@pytest.mark.parametrize("options", COMBINATIONS)
def test_a_constant_background_image_is_its_number(rng, smooth, edges, options):
    image, _, psf = smooth
    image = rng.poisson(image).astype(np.float32) + 20
    given = {"iterations": 8, "edges": edges, "device": "cpu", **options}
    number = gd.deconvolve(image, psf, background=20.0, **given)
    field = gd.deconvolve(image, psf, background=np.full(image.shape, 20.0), **given)
    assert (number == field).all()


@pytest.mark.parametrize("camera", [None, gd.Camera(offset=100.0, read_noise=2.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_dead_pixel_in_the_background_image_changes_next_to_nothing(rng, asymmetric_psf, camera, masked):
    """Neither what is restored elsewhere, nor the level, the SNR and what follows from it."""
    truth = np.zeros((12, 32, 33))
    truth[6, 16, 16], truth[4, 10:20, 8] = 40000, 3000
    psf = asymmetric_psf((5, 7, 7))
    image = (rng.poisson(blurred(truth, psf) + 20) + 100).astype(np.float32)
    field = np.full(truth.shape, 120.0)
    field[2, 25, 25] = 0
    mask = rng.random(truth.shape) > 0.1 if masked else None
    options = {"camera": camera, "device": "cpu", "threads": 1}

    def found(background):
        decon = gd.Deconvolver(image.shape, psf, back_projector="wb", background=background, **options)
        problem = problem_of(image, mask, decon.conditions, decon.method, decon._model, (1.0, 1.0, 1.0))
        plain = gd.deconvolve(image, psf, mask=mask, background=background, iterations=20, **options)
        return plain.sum(dtype=float), snr_of(problem), decon.method.settled(problem).alpha, problem.background

    # the light that the voxel itself then has, 20 above the offset or 120 without one, is less than 1 % of all
    assert found(field) == pytest.approx(found(120.0), rel=0.01)


@pytest.mark.parametrize("haze", [0, 10])
@pytest.mark.parametrize("options", [{}, {"back_projector": "wb"}, {"acceleration": "biggs"}])
def test_the_mean_of_dark_frames_is_as_good_as_the_offset(rng, asymmetric_psf, haze, options):
    """Half of its voxels are below the offset; a model that came to 0 there would run away where nothing shines."""
    truth = np.zeros((12, 32, 33))
    truth[6, 16, 16], truth[4, 10:20, 8] = 40000, 3000
    psf, camera = asymmetric_psf((5, 7, 7)), gd.Camera(offset=100, gain=2.0, read_noise=1.5)
    image = 100 + 2 * (rng.poisson(blurred(truth, psf) / 2 + haze) + rng.normal(0, 1.5, truth.shape))
    dark = 100 + 2 * rng.normal(0, 1.5, (16, *truth.shape)).mean(axis=0)
    options |= {"camera": camera, "iterations": 20, "device": "cpu"}
    by_frame, by_number = (gd.deconvolve(image, psf, background=b, **options) for b in (dark, 100.0))
    assert by_frame.sum(dtype=float) == pytest.approx(by_number.sum(dtype=float), rel=0.03)
    assert by_frame[:, 25:, 20:].std() < 1.5 * by_number[:, 25:, 20:].std()


def test_a_part_splits_its_background_image_as_the_whole_did(rng, asymmetric_psf):
    """Its own median would be another one."""
    field = 20 + 30.0 * (np.arange(30) > 17) + np.zeros((6, 20, 1))
    image = rng.poisson(field).astype(np.float32)
    decon = gd.Deconvolver(image.shape, asymmetric_psf((3, 3, 3)), background=field, device="cpu", iterations=1)
    record = Record(decon.decide(image).recorded, is_part=True)
    problem = problem_of(image, None, Conditions(field + 7), decon.method, decon._model, (1.0, 1.0, 1.0), record)
    assert problem.background == np.median(field)
    np.testing.assert_allclose(problem.background + problem.background_image, field + 7)


@each_edge
def test_a_ramp_of_background_is_removed(rng, asymmetric_psf, edges):
    truth = np.zeros((7, 30, 31))
    truth[3, 12:17, 14], truth[2, 20, 18:22] = 300, 200
    psf = asymmetric_psf((3, 5, 5))
    ramp = np.linspace(10, 90, 31) + np.linspace(0, 30, 30)[:, None] + np.zeros((7, 1, 1))
    image = rng.poisson(blurred(truth, psf) + ramp).astype(np.float32)
    options = {"iterations": 30, "edges": edges, "device": "cpu"}
    restored = gd.deconvolve(image, psf, background=ramp, **options)
    level = gd.deconvolve(image, psf, background=float(ramp.mean()), **options)
    empty = blurred(ndimage.binary_dilation(truth > 0, iterations=5).astype(float), np.ones((1, 1, 1))) == 0
    # what is left is what noise, of at most sqrt(120) counts, holds above the ramp
    assert restored[empty].mean() < 4
    assert level[empty].mean() > 8
    assert np.abs(restored - truth).mean() < 0.5 * np.abs(level - truth).mean()


@pytest.mark.parametrize("shape", [(5, 12, 11), (16, 19)])
def test_background_mask_and_read_noise_in_the_formula(asymmetric_psf, rng, shape):
    """f <- f / (H^T M) H^T( M (g - o + v) / (H f + b - o + v) ), v = read_noise^2 gain, in float64."""
    psf = asymmetric_psf((3, 4, 5)[-len(shape) :])
    image = rng.integers(100, 180, shape).astype(np.float32)
    background = 105 + 5 * rng.random(shape)
    mask = rng.random(shape) > 0.15
    variance = 3.0**2 * 1.7
    counts, beneath = image - 100.0 + variance, background - 100 + variance
    f = np.full(shape, np.maximum(counts - beneath, 0)[mask].mean())
    for _ in range(10):
        ratio = np.where(mask, counts / (blurred(f, psf) + beneath), 0)
        f = f * adjoint(ratio, psf) / adjoint(mask.astype(float), psf)
    restored = gd.deconvolve(
        image, psf, iterations=10, edges="periodic", mask=mask, background=background,
        camera=gd.Camera(offset=100, gain=1.7, read_noise=3.0), device="cpu",
    )  # fmt: skip
    assert np.abs(restored - f).max() <= 1e-4 * f.max()


@each_edge
@pytest.mark.parametrize("options", COMBINATIONS)
def test_a_camera_offset_is_subtracted(rng, smooth, edges, options):
    image, _, psf = smooth
    image = rng.poisson(image).astype(np.uint16)
    options = {"iterations": 8, "edges": edges, "device": "cpu", **options}
    plain = gd.deconvolve(image, psf, camera=gd.Camera(), **options)
    for background in (0.0, 100.0):  # what lies below the offset counts as the offset
        camera = gd.Camera(offset=100.0)
        assert (
            gd.deconvolve(image + np.uint16(100), psf, camera=camera, background=background, **options) == plain
        ).all()


def test_read_noise_is_that_of_the_exact_likelihood(rng):
    """One step without blur is f (1 + d log p(g | f) / df), with p by brute force the sum over all counts n of
    Poisson(n; f) Normal(g; offset + gain n, gain read_noise).
    """
    gain, sigma, offset, level = 1.7, 2.0, 50.0, 8.0
    electrons = rng.poisson(level, (1, 64, 64)) + rng.normal(scale=sigma, size=(1, 64, 64))
    image = (offset + gain * electrons).astype(np.float32)
    delta = np.ones((1, 1, 1), np.float32)

    def score(camera):
        restored = gd.deconvolve(image, delta, iterations=1, edges="periodic", camera=camera, device="cpu")
        start = np.maximum(image.astype(float) - offset, 0).mean()
        return restored / start - 1, start / gain

    n = np.arange(80)[:, None]
    found, rate = score(gd.Camera(offset, gain, sigma))
    values = (image.astype(float).ravel() - offset) / gain

    def log_likelihood(f):
        return np.log((poisson.pmf(n, f) * norm.pdf(values, n, sigma)).sum(axis=0))

    exact = (log_likelihood(rate + 1e-4) - log_likelihood(rate - 1e-4)) / 2e-4
    found = found.ravel()
    ignored = score(gd.Camera(offset, gain, 0.0))[0].ravel()
    assert np.sqrt(((found - exact) ** 2).mean()) < 0.1 * exact.std()
    assert np.sqrt(((ignored - exact) ** 2).mean()) > 0.3 * exact.std()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": np.ones((4, 8), bool)}, r"mask has shape \(4, 8\)"),
        ({"mask": np.ones((4, 8, 9))}, "holds float64; it must be boolean"),
        ({"mask": np.zeros((4, 8, 9), bool)}, "leave no voxel"),
        ({"saturation": 0.5}, "leave no voxel"),
        ({"saturation": "high"}, "saturation is 'high'; give the grey value"),
        ({"background": np.ones((4, 8, 8))}, r"background has shape \(4, 8, 8\)"),
        ({"background": np.full((4, 8, 9), np.nan)}, "background holds NaN"),
        ({"camera": 100.0}, "camera is 100.0; give a gpudecon.Camera"),
        ({"method": "wiener", "saturation": 1.0}, "leave no voxel"),
        ({"method": "wiener", "mask": np.arange(288).reshape(4, 8, 9) > 3}, "wiener cannot leave voxels out"),
    ],
)
def test_what_cannot_be_is_refused(asymmetric_psf, given, message):
    image, psf = np.ones((4, 8, 9), np.float32), asymmetric_psf((3, 3, 3))
    with pytest.raises(InputError, match=message):
        gd.deconvolve(image, psf, device="cpu", **given)


@pytest.mark.parametrize("method", [name for name, kind in gd.METHODS.items() if hasattr(kind, "iterations")])
@pytest.mark.parametrize("level", [99, 100])
def test_an_image_that_is_not_above_the_offset_is_refused(asymmetric_psf, method, level):
    """Iterations divide by its highest value.  A part of a brighter one may be as dark, and is."""
    psf, camera = asymmetric_psf((3, 3, 3)), gd.Camera(offset=100.0)
    dark = np.full((4, 8, 9), level, np.uint16)
    dark[2, 4, 4] = 98
    options = {"camera": camera, "device": "cpu", "iterations": 3}
    with pytest.raises(InputError, match=f"largest value {level} is not above the background 100 .*nothing is left"):
        gd.deconvolve(dark, psf, method, **options)
    decon = gd.Deconvolver(dark.shape, psf, method, **options)
    if decon.method.divisible:
        bright = dark + np.uint16(50) * (np.arange(9) > 6).astype(np.uint16)
        assert np.isfinite(gd.deconvolve(dark, psf, method, constants=decon.decide(bright), **options)).all()


def test_nan_is_not_saturated(asymmetric_psf):
    """It is refused, by a survey too; infinity is above any level."""
    image = np.ones((4, 8, 9), np.float32)
    image[2, 4, 4] = np.inf
    options = {"saturation": 1000.0, "iterations": 2, "device": "cpu"}
    assert np.isfinite(gd.deconvolve(image, asymmetric_psf((3, 3, 3)), **options)).all()
    image[2, 4, 5] = np.nan
    with pytest.raises(InputError, match="holds 1 NaN or infinite voxels"):
        gd.deconvolve(image, asymmetric_psf((3, 3, 3)), **options)
    with pytest.raises(InputError, match="holds 1 NaN or infinite voxels"):
        survey(image.__getitem__, [...], Conditions(0.0, None, 1000.0))
