"""Richardson-Lucy's variants against float64 references, and what must hold for every combination of options."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.errors import InputError
from gpudecon.forward import EDGES, ForwardModel
from gpudecon.methods.problem import settled
from gpudecon.quality.metrics import nrmse
from gpudecon.recording import Conditions, problem_of
from gpudecon.simulate import phantom

SHAPES = [((5, 14, 13), (4, 5, 6)), ((17, 22), (6, 5))]
ACCELERATIONS = ["none", "shb", "biggs"]
BACK_PROJECTORS = ["matched", "wb", "omw"]
PENALTIES = [{}, {"tv": 0.02}, {"goods_roughness": 0.02}, {"tikhonov": 0.02}]


def transfer(psf, shape):
    """The PSF's FFT in float64, its centre n // 2 at index 0."""
    placed = np.zeros(shape)
    for index in np.ndindex(psf.shape):
        placed[tuple((i - p // 2) % n for i, p, n in zip(index, psf.shape, shape, strict=True))] += psf[index]
    return np.fft.fftn(placed)


def filtered(field, otf):
    return np.fft.ifftn(np.fft.fftn(field) * otf).real


def divergence(image, model):
    from scipy.special import kl_div

    return kl_div(image, model).mean()


@pytest.fixture
def noisy(asymmetric_psf, rng):
    """A function (shape, psf shape, photons, background) -> (image with zeros, PSF): sparse points, Poisson noise."""

    def make(shape, psf_shape, photons=30.0, background=0.0):
        psf = asymmetric_psf(psf_shape)
        truth = np.where(rng.random(shape) < 0.03, 1.0, 0.0)
        truth[tuple(n // 2 for n in shape)] = 1.0
        blurred = np.maximum(filtered(truth, transfer(psf, shape)), 0)
        return rng.poisson(blurred / blurred.max() * photons + background).astype(np.float32), psf

    return make


def problem_for(image, psf, method):
    backend = get_backend("cpu", threads=1)
    model = ForwardModel(backend, image.shape, psf, "periodic")
    return problem_of(image, None, Conditions(), method, model, (1.0, 1.0, 1.0))


def ahead(value, step):
    """Value + step, downwards value exp(step / value)."""
    falling = np.exp(np.maximum(np.minimum(step, 0) / np.maximum(value, 1e-30), -16))
    return np.where(step < 0, value * falling, value + step)


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("background", [0.0, 3.5])
def test_heavy_ball_is_its_formula(asymmetric_psf, rng, shape, psf_shape, background):
    """Kim & Fessler (2016), algorithm OGM1 with a step of Richardson-Lucy in place of the gradient's."""
    image = (rng.random(shape) * 50 + 10).astype(np.float32)
    psf = asymmetric_psf(psf_shape)
    otf = transfer(psf, shape)
    x = y = np.full(shape, image.mean(dtype=float) - background)
    theta, has_fallen = 1.0, False
    for _ in range(15):
        new = y * filtered(image / (filtered(y, otf) + background), otf.conj())
        following = (1 + np.sqrt(1 + 4 * theta**2)) / 2
        step = (theta - 1) / following * (new - x) + theta / following * (new - y)
        has_fallen |= bool((step < -0.7 * new).any())
        x, y, theta = new, ahead(new, step), following
    assert has_fallen
    restored = gd.deconvolve(
        image, psf, iterations=15, acceleration="shb", background=background, edges="periodic", device="cpu"
    )
    assert np.abs(restored - x).max() <= 1e-4 * x.max()


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("background", [0.0, 3.5])
def test_biggs_is_its_formula(asymmetric_psf, rng, shape, psf_shape, background):
    """Biggs & Andrews (1997): alpha_k = g_(k-1) . g_(k-2) / |g_(k-2)|^2, g_k = x_(k+1) - y_k."""
    image = (rng.random(shape) * 50 + 10).astype(np.float32)
    psf = asymmetric_psf(psf_shape)
    otf = transfer(psf, shape)
    x = y = np.full(shape, image.mean(dtype=float) - background)
    before, factors = None, []
    for _ in range(20):
        new = y * filtered(image / (filtered(y, otf) + background), otf.conj())
        step = new - y
        factors.append(0.0 if before is None else np.clip((step * before).sum() / (before * before).sum(), 0, 1))
        x, y = new, ahead(new, factors[-1] * (new - x))
        before = step
    assert min(factors[1:]) < 0.9
    assert max(factors) > 0.3
    restored = gd.deconvolve(
        image, psf, iterations=20, acceleration="biggs", background=background, edges="periodic", device="cpu"
    )
    # as plain Richardson-Lucy: each convolution has an error of a few eps log2(N) of the largest value
    assert np.abs(restored - x).max() <= 1e-4 * x.max()


def band_limit(kind, magnitude, cutoff):
    """A soft mask of |H| that is 1 at frequency 0, or a Butterworth filter of order 10 that ends at |H| = cutoff.

    The latter is one of sin(pi k) with k in cycles per voxel.
    """
    if kind == "omw":
        return (1 + cutoff**4) / (1 + (cutoff / np.maximum(magnitude, 1e-9)) ** 4)
    radius = np.zeros(magnitude.shape)
    for axis, n in enumerate(magnitude.shape):
        k = np.abs(np.fft.fftfreq(n, 1 / n))
        others = tuple(a for a in range(magnitude.ndim) if a != axis)
        highest = k[(magnitude >= cutoff).any(axis=others)].max()
        waves = np.sin(np.pi * k / n) / np.sin(np.pi * max(highest, 1) / n)
        radius += (waves**2).reshape([-1 if a == axis else 1 for a in range(magnitude.ndim)])
    return 1 / np.sqrt(1 + radius**10)


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("kind", ["wb", "omw"])
@pytest.mark.parametrize("masked", [False, True])
def test_unmatched_back_projection_is_its_formula(asymmetric_psf, rng, shape, psf_shape, kind, masked):
    """f <- f max(1 + B( M g / (H f + b) - M ) / max(B M, 0.2), 1/2) with B = W H^T; with M every third step plain."""
    psf = asymmetric_psf(psf_shape)
    otf = transfer(psf, shape)
    image = (filtered(ndimage.gaussian_filter(rng.random(shape), 1) * 200, otf) + 2.5).astype(np.float32)
    mask = rng.random(shape) > 0.1 if masked else np.ones(shape, bool)
    alpha, cutoff = 0.3, 0.2
    sharpening = (1 + alpha) / (np.abs(otf) ** 2 + alpha) * band_limit(kind, np.abs(otf), cutoff)
    assert sharpening.flat[0] == pytest.approx(1, rel=1e-6)
    sensitivity = filtered(mask.astype(float), otf.conj())
    f = np.full(shape, (image[mask].astype(float) - 2.5).mean())
    fits = []
    share = filtered(mask.astype(float), otf.conj() * sharpening)
    assert share.min() > 0.05
    for k in range(1, 7):
        model = filtered(f, otf) + 2.5
        fits.append(divergence(image[mask], model[mask]))
        if masked and k % 3 == 0:
            f = f * filtered(np.where(mask, image / model, 0), otf.conj()) / sensitivity
        else:
            excess = filtered(np.where(mask, image / model - 1, 0), otf.conj() * sharpening)
            f = f * np.maximum(1 + excess / np.maximum(share, 0.2), 0.5)
    fits.append(divergence(image[mask], (filtered(f, otf) + 2.5)[mask]))
    assert fits == sorted(fits, reverse=True), "else the guard would take steps back"
    restored = gd.deconvolve(
        image, psf, iterations=6, back_projector=kind, alpha=alpha, cutoff=cutoff, background=2.5,
        mask=mask if masked else None, edges="periodic", device="cpu",
    )  # fmt: skip
    assert np.abs(restored - f).max() <= 1e-4 * f.max()


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("acceleration", ACCELERATIONS)
def test_a_step_that_fits_worse_is_made_with_the_adjoint(asymmetric_psf, rng, shape, psf_shape, acceleration):
    """From the same point and with the same momentum; after the third such step all are with H^T."""
    psf = asymmetric_psf(psf_shape)
    otf = transfer(psf, shape)
    image = rng.poisson(np.maximum(filtered(ndimage.gaussian_filter(rng.random(shape), 1) * 60, otf), 0) + 2.5)
    alpha, cutoff, iterations = 0.006, 0.1, 14
    sharpening = (1 + alpha) / (np.abs(otf) ** 2 + alpha) * band_limit("omw", np.abs(otf), cutoff)

    def fit(y):
        return divergence(image, filtered(y, otf) + 2.5)

    def advanced(new, state):
        x, y, theta, before = state
        step, following = new - y, (1 + np.sqrt(1 + 4 * theta**2)) / 2
        factor = 0.0 if before is None else np.clip((step * before).sum() / (before * before).sum(), 0, 1)
        ways = {
            "none": np.zeros(shape),
            "shb": (theta - 1) / following * (new - x) + theta / following * step,
            "biggs": factor * (new - x),
        }
        return new, ahead(new, ways[acceleration]), following, step

    start = np.full(shape, image.mean() - 2.5)
    state, lowest, taken_back, margins = (start, start, 1.0, None), fit(start), [], []
    rise = 1.02 if acceleration == "shb" else 1.001
    for k in range(1, iterations + 1):
        y = state[1]
        ratio = image / (filtered(y, otf) + 2.5)
        if len(taken_back) < 3:
            bold = advanced(y * np.maximum(1 + filtered(ratio - 1, otf.conj() * sharpening), 0.5), state)
            margins.append(fit(bold[1]) / lowest / rise)
            lowest = min(lowest, fit(bold[1]))
        if len(taken_back) == 3 or margins[-1] > 1:
            taken_back += [k] if len(taken_back) < 3 else []
            bold = advanced(y * filtered(ratio, otf.conj()), state)
            lowest = min(lowest, fit(bold[1]))
        state = bold
    assert len(taken_back) == 3
    assert len(margins) > 3, "a step is kept"
    assert np.abs(np.array(margins) - 1).min() > 1e-3, "else rounding decides"
    restored = gd.deconvolve(
        image.astype(np.float32), psf, iterations=iterations, acceleration=acceleration, back_projector="omw",
        alpha=alpha, cutoff=cutoff, background=2.5, edges="periodic", device="cpu",
    )  # fmt: skip
    assert np.abs(restored - state[0]).max() <= 1e-3 * state[0].max()


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("acceleration", ACCELERATIONS)
@pytest.mark.parametrize("back_projector", BACK_PROJECTORS)
def test_every_combination_is_finite_and_not_negative(noisy, rng, edges, acceleration, back_projector):
    for (shape, psf_shape), penalty, masked in itertools.product(SHAPES, PENALTIES, [False, True]):
        background = 2.0 * masked
        image, psf = noisy(shape, psf_shape, background=background)
        assert (image == 0).any()
        mask = rng.random(shape) > 0.2 if masked else None
        restored = gd.deconvolve(
            image, psf, iterations=15, acceleration=acceleration, back_projector=back_projector, edges=edges,
            background=background, mask=mask, device="cpu", threads=1, **penalty,
        )  # fmt: skip
        assert np.isfinite(restored).all()
        assert restored.min() >= 0
        assert restored.max() > image.max() / 4, "something is restored"


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("acceleration", ACCELERATIONS)
@pytest.mark.parametrize("back_projector", ["wb", "omw"])
@pytest.mark.parametrize("alpha", [0.001, "auto"])
def test_over_iteration_does_not_lower_the_likelihood(noisy, edges, acceleration, back_projector, alpha):
    """A constant of 0.001 diverges without the guard; 100 iterations are far more than an unmatched form needs.

    The guard looks at the point that the next step starts from, with an allowance of 0.1 %, and 2 % for "shb".  What is
    reported is the divergence of the estimate, which momentum has not carried on yet: it may rise more on the way with
    momentum, and with the constant of 0.001 in the first large steps, but is low at the end.  With "reflect" it is that
    from the image alone, a part of the data; there the end must be better than 10 plain steps.
    """
    scenes = [(SHAPES[0], 5.0, 0.0), (SHAPES[0], 200.0, 3.0), (SHAPES[1], 5.0, 3.0), (SHAPES[1], 200.0, 0.0)]
    for (shape, psf_shape), photons, background in scenes:  # every pair of values
        image, psf = noisy(shape, psf_shape, photons, background)
        seen = []
        restored = gd.deconvolve(
            image, psf, iterations=100, acceleration=acceleration, back_projector=back_projector, alpha=alpha,
            edges=edges, background=background, device="cpu", threads=1, divergence_every=1,
            callback=lambda k, estimate, info, seen=seen: seen.append(info.divergence),
        )  # fmt: skip
        assert np.isfinite(restored).all()
        assert restored.min() >= 0
        if edges == "reflect":
            gd.deconvolve(
                image, psf, iterations=10, edges=edges, background=background, device="cpu", threads=1,
                callback=lambda k, estimate, info, seen=seen: seen.append(info.divergence),
            )  # fmt: skip
            assert seen[99] < seen[-1]
            continue
        lowest = np.minimum.accumulate(seen)
        allowed = 1.03 if acceleration == "shb" else 1.01
        assert seen[-1] <= allowed * lowest[-1]
        if alpha == "auto" and acceleration == "none":
            assert (seen <= allowed * lowest).all(), (seen / lowest).max()


@pytest.fixture
def nuclei(rng):
    """A function photons -> (image, truth, PSF): the dense phantom under a Gaussian PSF, opposite faces touching."""
    voxel_um = (0.2, 0.1, 0.1)
    truth = phantom("nuclei", (16, 48, 48), voxel_um, seed=3).astype(float)
    axes = np.meshgrid(*(np.arange(n) - n // 2 for n in (11, 13, 13)), indexing="ij")
    psf = np.exp(-sum((a / s) ** 2 for a, s in zip(axes, (1.6, 1.5, 1.5), strict=True)) / 2)
    psf = (psf / psf.sum()).astype(np.float32)
    blurred = np.maximum(filtered(truth, transfer(psf, truth.shape)), 0)

    def make(photons):
        scale = photons / blurred.max()
        return rng.poisson(blurred * scale).astype(np.float32), truth * scale, psf

    return make


def test_automatic_alpha_follows_the_signal_to_noise_ratio(nuclei):
    """Without background the SNR of n photons is sqrt(n): alpha = 5 / sqrt(n) between 0.35 and 1."""
    method = gd.RichardsonLucy(back_projector="wb")
    found = []
    for photons in (4.0, 40.0, 100.0, 1e4):
        image, _, psf = nuclei(photons)
        chosen = settled(method, problem_for(image, psf, method))
        assert chosen.cutoff == pytest.approx(0.01 * chosen.alpha)
        found.append(chosen.alpha)
    # the brightest 10^-4 of the voxels lie below the peak, and darkest regions are not quite 0
    expected = [1.0, 5 / np.sqrt(40), 0.5, 0.35]
    np.testing.assert_allclose(found, expected, rtol=0.25)
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert found[-1] == 0.35


def test_settled_keeps_what_is_given_and_chooses_the_rest(nuclei):
    image, _, psf = nuclei(20.0)
    matched = gd.RichardsonLucy()
    problem = problem_for(image, psf, matched)
    assert settled(matched, problem) is matched
    given = gd.RichardsonLucy(back_projector="omw", alpha=0.4, cutoff=0.07)
    assert settled(given, problem) == given
    half = settled(gd.RichardsonLucy(back_projector="omw", alpha=0.4), problem)
    assert (half.alpha, half.cutoff) == (0.4, pytest.approx(0.004))
    auto = gd.RichardsonLucy(iterations=4, back_projector="wb")
    once = settled(auto, problem)
    assert settled(once, problem) == once
    restored = (gd.deconvolve(image, psf, m, edges="periodic", device="cpu") for m in (auto, once))
    assert (next(restored) == next(restored)).all()


def errors_of(image, truth, psf, iterations=60, **options):
    errors = []
    gd.deconvolve(
        image, psf, iterations=iterations, edges="periodic", device="cpu", voxel_um=(0.2, 0.1, 0.1), divergence_every=0,
        callback=lambda k, estimate, info: errors.append(nrmse(estimate, truth)), **options,
    )  # fmt: skip
    return errors


@pytest.mark.parametrize("penalty", ["tv", "goods_roughness", "tikhonov"])
def test_penalties_lower_the_error_at_20_photons(nuclei, penalty):
    """Against plain Richardson-Lucy at its best number of iterations, and more clearly at the last."""
    image, truth, psf = nuclei(20.0)
    plain, penalised = errors_of(image, truth, psf), errors_of(image, truth, psf, **{penalty: 0.05})
    assert min(penalised) < min(plain)
    assert penalised[-1] < 0.9 * plain[-1]


def test_a_penalty_pulls_less_along_an_axis_with_larger_voxels(noisy):
    """The same as a smaller strength there: with voxels of 100 um along x, nothing is smoothed along x."""
    image, psf = noisy((12, 15), (3, 3))
    for penalty in PENALTIES[1:]:
        options = {"iterations": 10, "edges": "periodic", "device": "cpu", **penalty}
        free = gd.deconvolve(image, psf, voxel_um=(1.0, 1.0), **options)
        tall = gd.deconvolve(image, psf, voxel_um=(1.0, 100.0), **options)
        swapped = gd.deconvolve(image.T.copy(), psf.T.copy(), voxel_um=(100.0, 1.0), **options)
        np.testing.assert_allclose(swapped.T, tall, atol=1e-4 * tall.max())
        rough = [float(np.abs(np.diff(f, axis=1)).sum()) for f in (free, tall)]
        assert rough[1] > 1.02 * rough[0]


@pytest.mark.filterwarnings("ignore:The PSF passes every frequency")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("edges", EDGES)
def test_starts_are_positive_and_lead_to_the_same_limit(asymmetric_psf, rng, edges, masked):
    """Noise-free, and the PSF passes all frequencies well: the limit is the truth, which hidden voxels near slowly."""
    shape, psf = (21, 26), np.zeros((3, 4), np.float32)
    psf[1, 2], psf[0, 2], psf[1, 1] = 0.7, 0.2, 0.1
    truth = np.zeros(shape)
    truth[5:-5, 5:-6] = ndimage.gaussian_filter(rng.random((11, 15)), 1) * 100 + 20
    image = filtered(truth, transfer(psf, shape)).clip(0).astype(np.float32) + np.float32(1)
    mask = np.ones(shape, bool)
    mask[8, 9] = mask[12, 15] = not masked
    # the neighbours share 0.3 of a hidden voxel's light
    tolerance = np.where(mask, 0.02 if masked else 0.01, 0.1) * truth.max()
    for start in ("flat", "image", "lowpass", "wiener"):
        seen = []
        restored = gd.deconvolve(
            image, psf, iterations=400, acceleration="shb", start=start, edges=edges, background=1.0, mask=mask,
            device="cpu", callback=lambda k, f, i, seen=seen: seen.append(float(f.min())), divergence_every=0,
        )  # fmt: skip
        assert seen[0] > 0
        assert (np.abs(restored - truth) <= tolerance).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.1}, "alpha is 0.1, but the back projector 'matched' has none"),
        ({"cutoff": 0.1}, "cutoff is 0.1, but the back projector 'matched' has none"),
        ({"back_projector": "wb", "alpha": 0.0}, "alpha is 0.0; it must be positive, or 'auto'"),
        ({"back_projector": "omw", "cutoff": -0.1}, "cutoff is -0.1; it must be positive"),
        ({"back_projector": "wb", "alpha": float("nan")}, "alpha is nan; it must be positive"),
        ({"back_projector": "wiener"}, "'wiener'; it must be 'matched' or 'wb' or 'omw'"),
        ({"back_projector": "wb", "alpha": "best"}, "alpha is 'best'; it must be 'auto' or a number"),
        ({"acceleration": "fast"}, "'fast'; it must be 'none' or 'shb' or 'biggs'"),
        ({"start": "zero"}, "'zero'; it must be 'flat' or 'image' or 'lowpass' or 'wiener'"),
        ({"tv": 0.1, "tikhonov": 0.1}, "tv and tikhonov were given; use one penalty"),
        ({"tv": 0.1, "goods_roughness": 0.1, "tikhonov": 1}, "tv and goods_roughness and tikhonov were given"),
        ({"tv": -0.1}, "tv is -0.1; it must be positive, or 0 for none"),
        ({"goods_roughness": float("inf")}, "goods_roughness is inf; it must be positive"),
        ({"tikhonov": float("nan")}, "tikhonov is nan; it must be positive"),
        ({"tv": "much"}, "tv is 'much'; it must be a number"),
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        gd.RichardsonLucy(**options)
