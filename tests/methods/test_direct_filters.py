"""Wiener and constrained least squares against their formulas in float64, and the discrepancy rule."""

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.backend.numpy import NumpyBackend
from gpudecon.forward import ForwardModel
from gpudecon.methods.object_spectrum import signal_to_noise
from gpudecon.methods.problem import Problem
from gpudecon.quality.metrics import nrmse


def direct(image, psf, denominator):
    """conj(H) G / denominator(|H|^2), periodic, in float64."""
    placed = np.zeros(image.shape)
    placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, image.shape, strict=True)))] = psf
    otf = np.fft.fftn(placed)
    return np.fft.ifftn(otf.conj() * np.fft.fftn(image.astype(float)) / denominator(np.abs(otf) ** 2)).real


def laplacian(shape, voxel_um):
    """Transfer of the discrete Laplacian by transforming its stencil."""
    stencil = np.zeros(shape)
    for axis, (n, v) in enumerate(zip(shape, voxel_um, strict=True)):
        weight = (min(voxel_um) / v) ** 2
        for step in (-1, 1):
            stencil[tuple(step % n if a == axis else 0 for a in range(len(shape)))] -= weight
        stencil[(0,) * len(shape)] += 2 * weight
    return np.fft.fftn(stencil).real


@pytest.mark.parametrize("shape", [(7, 12, 15), (6, 13, 10), (17, 22)])
def test_wiener_is_its_formula(asymmetric_psf, rng, shape):
    psf = asymmetric_psf((3, 4, 5)[-len(shape) :])
    image = rng.normal(100, 30, shape).astype(np.float32)
    restored = gd.deconvolve(image, psf, "wiener", noise_to_signal=0.03, edges="periodic", device="cpu")
    expected = direct(image, psf, lambda h2: h2 + 0.03)
    assert np.abs(restored - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("voxel_um", [(0.3, 0.1, 0.12), (0.1, 0.1, 0.1)])
def test_cls_is_its_formula_on_anisotropic_voxels(asymmetric_psf, rng, voxel_um):
    shape = (7, 12, 15)
    psf = asymmetric_psf((3, 4, 5))
    image = rng.normal(100, 30, shape).astype(np.float32)
    restored = gd.deconvolve(image, psf, "cls", gamma=0.2, edges="periodic", device="cpu", voxel_um=voxel_um)
    expected = direct(image, psf, lambda h2: h2 + 0.2 * laplacian(shape, voxel_um) ** 2)
    assert np.abs(restored - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.fixture
def noisy_scene(rng):
    """(image, truth, psf, noise variance): smooth blobs under a wide PSF with white noise of known variance."""
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (13, 17, 17)), indexing="ij")
    psf = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (2.0, 1.8, 2.2), strict=True)) / 2).astype(np.float32)
    psf /= psf.sum()
    truth = ndimage.gaussian_filter((rng.random((40, 64, 65)) > 0.999) * 3e4, 1.0)
    blurred = ndimage.gaussian_filter(truth, (2.0, 1.8, 2.2), mode="wrap", truncate=6)
    variance = 25.0
    return (blurred + rng.normal(scale=5.0, size=truth.shape)).astype(np.float32), truth, psf, variance


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("edges", ["periodic", "extend"])
def test_discrepancy_rule_leaves_the_noise_as_residual(noisy_scene, given, edges):
    """Hunt 1973: the residual's variance is the noise's, whether the noise is told or measured from the image."""
    image, _, psf, variance = noisy_scene
    options = {"noise_variance": variance} if given else {}
    restored = gd.deconvolve(image, psf, "cls", edges=edges, device="cpu", **options)
    again = np.zeros(image.shape)
    for index in zip(*np.nonzero(psf > 1e-7), strict=True):
        again += float(psf[index]) * np.roll(
            restored, [i - n // 2 for i, n in zip(index, psf.shape, strict=True)], (0, 1, 2)
        )
    inside = (slice(None),) * 3 if edges == "periodic" else (slice(7, -7), slice(9, -9), slice(9, -9))
    residual = (image - again)[inside]
    assert residual.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("method", ["wiener", "cls"])
def test_auto_is_near_the_best_constant(noisy_scene, method):
    image, truth, psf, _ = noisy_scene
    option = {"wiener": "noise_to_signal", "cls": "gamma"}[method]
    errors = [nrmse(gd.deconvolve(image, psf, method, device="cpu", **{option: 10.0**-e}), truth) for e in range(9)]
    chosen = nrmse(gd.deconvolve(image, psf, method, device="cpu"), truth)
    assert chosen < nrmse(image, truth)
    assert chosen < 1.15 * min(errors)


@pytest.mark.parametrize("method", ["wiener", "cls"])
def test_nonnegative_clips_and_nothing_else(noisy_scene, method):
    image, _, psf, _ = noisy_scene
    free = gd.deconvolve(image, psf, method, device="cpu")
    assert free.min() < 0
    assert (gd.deconvolve(image, psf, method, device="cpu", nonnegative=True) == np.maximum(free, 0)).all()


@pytest.mark.parametrize("method", ["wiener", "cls"])
def test_no_ringing_from_one_face_to_the_opposite(asymmetric_psf, method):
    """A ramp has its largest jump where opposite faces would touch: the taper removes it."""
    ramp = np.broadcast_to(np.linspace(100, 1000, 48, dtype=np.float32), (9, 21, 48)).copy()
    psf = asymmetric_psf((3, 5, 9))
    options = {"wiener": {"noise_to_signal": 1e-3}, "cls": {"gamma": 1e-3}}[method]

    def worst(edges):
        restored = gd.deconvolve(ramp, psf, method, edges=edges, device="cpu", **options)
        return float(np.abs(restored - ramp)[:, :, :3].max())

    assert worst("extend") < 0.1 * worst("periodic")


@pytest.mark.parametrize("shape", [(7, 12, 15), (6, 13, 10), (17, 22)])
@pytest.mark.parametrize("threshold", [0.02, 0.3])
@pytest.mark.parametrize("below", ["clamp", "zero"])
def test_inverse_is_its_formula(asymmetric_psf, rng, shape, threshold, below):
    psf = asymmetric_psf((3, 4, 5)[-len(shape) :])
    image = rng.normal(100, 30, shape).astype(np.float32)
    options = {"threshold": threshold, "below": below}
    restored = gd.deconvolve(image, psf, "inverse", edges="periodic", device="cpu", **options)
    beyond = np.inf if below == "zero" else threshold**2
    expected = direct(image, psf, lambda h2: np.where(h2 < threshold**2, beyond, h2))
    # single precision, amplified by up to 1 / threshold
    assert np.abs(restored - expected).max() < 1e-5 / threshold * np.abs(expected).max()


def test_inverse_amplifies_noise_by_the_inverse_of_its_threshold(rng):
    """White noise comes out with the mean of (|H| / max(|H|, eps)^2)^2 times its power."""
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (7, 11)), indexing="ij")
    psf = np.exp(-(grid[0] ** 2 / 2 + grid[1] ** 2 / 5)).astype(np.float32)
    noise = rng.normal(size=(96, 101)).astype(np.float32)
    gains = []
    for threshold in (0.01, 0.1):
        restored = gd.deconvolve(
            noise, gd.PSF(psf / psf.sum()), "inverse", threshold=threshold, edges="periodic", device="cpu"
        )
        placed = np.zeros(noise.shape)
        placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, noise.shape, strict=True)))] = psf
        amplitude = np.abs(np.fft.fftn(placed / psf.sum()))
        gains.append(np.mean((amplitude / np.maximum(amplitude, threshold) ** 2) ** 2))
        # the power of 96 x 101 values of which a tenth or so carry it
        assert restored.var() == pytest.approx(gains[-1], rel=0.2)
    assert gains[0] > 10 * gains[1]


@pytest.fixture
def power_law(rng):
    """A function (exponent, shape, voxel size, sd of noise) -> (image, truth, PSF, oracle Wiener filter's result).

    The truth is a random field with S_f = A |k|^-exponent, k in 1 / um; all is periodic.
    """

    def make(exponent, shape, voxel_um, noise):
        k = np.sqrt(
            sum(
                f**2
                for f in np.meshgrid(
                    *(np.fft.fftfreq(n, v) for n, v in zip(shape, voxel_um, strict=True)), indexing="ij"
                )
            )
        )
        k.flat[0] = np.inf
        power = k**-exponent
        power *= 100**2 / power.mean()  # per frequency, of a field with standard deviation 100
        truth = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * np.sqrt(power)).real
        window = (7, 13, 11)[-len(shape) :]
        grid = np.meshgrid(*(np.arange(n) - n // 2 for n in window), indexing="ij")
        psf = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (1.0, 1.7, 1.4)[-len(shape) :], strict=True)) / 2)
        psf = (psf / psf.sum()).astype(np.float32)
        placed = np.zeros(shape)
        placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(window, shape, strict=True)))] = psf
        otf = np.fft.fftn(placed)
        image = np.fft.ifftn(np.fft.fftn(truth) * otf).real + rng.normal(scale=noise, size=shape) + 1000
        power.flat[0] = np.inf
        best = np.fft.ifftn(otf.conj() * np.fft.fftn(image) / (np.abs(otf) ** 2 + noise**2 / power)).real
        return image.astype(np.float32), truth, psf, best

    return make


@pytest.mark.parametrize(("shape", "voxel_um"), [((24, 48, 50), (0.3, 0.1, 0.12)), ((96, 101), (0.1, 0.1))])
@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.5])
@pytest.mark.parametrize("noise", [3.0, 20.0])
def test_wiener_spectrum_is_nearly_the_oracle(power_law, shape, voxel_um, exponent, noise):
    image, truth, psf, best = power_law(exponent, shape, voxel_um, noise)

    def error(**options):
        restored = gd.deconvolve(image, psf, "wiener", edges="periodic", voxel_um=voxel_um, device="cpu", **options)
        return nrmse(restored, truth)

    chosen = error(noise_to_signal="spectrum")
    assert chosen < 1.03 * nrmse(best, truth)
    constants = [error(noise_to_signal=10.0**-e) for e in range(7)]
    assert chosen < 1.005 * min(constants)
    if exponent > 4:  # the flatter the spectrum, the nearer it is to a constant
        assert chosen < 0.98 * min(constants)
    assert error() < 1.35 * min(constants) or exponent > 4


class AnyOrder:
    """NumPy, but for sums into bins in another order each time, as those of a GPU's atomic additions are."""

    def __init__(self):
        self._order = np.random.default_rng(0)

    def __getattr__(self, name):
        return getattr(np, name)

    def bincount(self, index, weights, minlength):
        order = self._order.permutation(index.size)
        return np.bincount(index[order], weights[order], minlength)


def test_the_measured_spectrum_has_the_same_bits_each_time(noisy_scene):
    image, _, psf, _ = noisy_scene
    backend = NumpyBackend(threads=1)
    backend.xp = AnyOrder()
    model = ForwardModel(backend, image.shape, psf, "periodic")
    problem = Problem(backend, model, image, 0.0, (1.0, 1.0, 1.0), float(image.max()))
    once, again = signal_to_noise(problem), signal_to_noise(problem)
    assert (once.ratio == again.ratio).all()
    chosen = next(iter(gd.Wiener("spectrum").iterate(problem)))
    expected = gd.deconvolve(image, psf, "wiener", noise_to_signal="spectrum", edges="periodic", device="cpu")
    assert (chosen == expected).all()


def test_wiener_spectrum_keeps_the_mean_and_says_when_it_cannot_be_measured(rng, noisy_scene):
    image, _, psf, _ = noisy_scene
    restored = gd.deconvolve(image, psf, "wiener", noise_to_signal="spectrum", edges="periodic", device="cpu")
    assert restored.mean(dtype=float) == pytest.approx(image.mean(dtype=float), rel=1e-5)
    noise = rng.normal(100, 5, (13, 30, 31)).astype(np.float32)
    with pytest.warns(gd.GpudeconWarning, match="Too little of the image stands out"):
        gd.deconvolve(noise, psf, "wiener", noise_to_signal="spectrum", device="cpu")


def cross_validation(image, psf, gammas):
    """(generalised, ordinary) cross-validation of periodic least squares with explicit matrices, for each gamma.

    Ordinary: the mean square error of each voxel predicted from all others.
    """
    n = image.size

    def matrix(stencil):
        placed = np.zeros(image.shape)
        placed[np.ix_(*((np.arange(p) - p // 2) % m for p, m in zip(stencil.shape, image.shape, strict=True)))] = (
            stencil
        )
        return np.stack([np.roll(placed, i, (0, 1)).ravel() for i in np.ndindex(image.shape)], axis=1)

    blur, rough = matrix(psf), matrix(np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0.0]]))
    g = image.ravel().astype(float)
    generalised, ordinary = [], []
    for gamma in gammas:
        influence = blur @ np.linalg.solve(blur.T @ blur + gamma * rough.T @ rough, blur.T)
        residual = g - influence @ g
        generalised.append(residual @ residual / np.trace(np.eye(n) - influence) ** 2)
        errors = []
        for left_out in range(n):
            kept = np.arange(n) != left_out
            normal = blur[kept].T @ blur[kept] + gamma * rough.T @ rough
            errors.append(g[left_out] - blur[left_out] @ np.linalg.solve(normal, blur[kept].T @ g[kept]))
        ordinary.append(np.mean(np.square(errors)))
    return np.array(generalised), np.array(ordinary)


def gamma_used(image, psf, restored):
    """The gamma that made ``restored`` of ``image``: from F (|H|^2 + gamma L^2) = conj(H) G, where that is clearest."""
    placed = np.zeros(image.shape)
    placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, image.shape, strict=True)))] = psf
    otf, spectrum, result = np.fft.fftn(placed), np.fft.fftn(image.astype(float)), np.fft.fftn(restored.astype(float))
    rough = laplacian(image.shape, (1.0,) * image.ndim) ** 2
    # least squares over all frequencies, which weighs the strongest most
    left, right = rough * result, otf.conj() * spectrum - np.abs(otf) ** 2 * result
    return float((left.conj() * right).sum().real / (np.abs(left) ** 2).sum())


def test_gcv_is_leave_one_out_on_a_small_periodic_image(asymmetric_psf, rng):
    """For circulant matrices all voxels have the same leverage, so generalised is ordinary cross-validation."""
    truth = ndimage.gaussian_filter(rng.normal(size=(7, 8)), 1.0, mode="wrap") * 100
    psf = asymmetric_psf((3, 3))
    blurred = sum(float(psf[i]) * np.roll(truth, [a - 1 for a in i], (0, 1)) for i in np.ndindex(psf.shape))
    image = (blurred + rng.normal(scale=4, size=truth.shape) + 50).astype(np.float32)
    gammas = np.geomspace(1e-5, 1e2, 29)
    generalised, ordinary = cross_validation(image, psf, gammas)
    np.testing.assert_allclose(generalised * image.size, ordinary, rtol=1e-6)
    restored = gd.deconvolve(image, psf, "cls", gamma="gcv", edges="periodic", device="cpu")
    chosen = gamma_used(image, psf, restored)
    (_, at_chosen) = cross_validation(image, psf, [chosen])
    assert gammas[0] < chosen < gammas[-1]
    # frequencies are binned by 1 % of L^2 / |H|^2, so V is right to about 1 %, and its minimum flat
    assert at_chosen[0] < 1.005 * ordinary.min()


def test_gcv_is_the_minimum_of_its_formula(noisy_scene):
    image, _, psf, _ = noisy_scene
    placed = np.zeros(image.shape)
    placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, image.shape, strict=True)))] = psf
    transfer = np.abs(np.fft.fftn(placed)) ** 2
    rough = laplacian(image.shape, (1.0, 1.0, 1.0)) ** 2
    power = np.abs(np.fft.fftn(image.astype(float))) ** 2
    power.flat[0] = 0

    def score(gamma):
        damped = gamma * rough / (transfer + gamma * rough + 1e-300)
        return (power * damped**2).sum() / damped.sum() ** 2

    best = min(score(g) for g in np.geomspace(1e-8, 1e4, 481))
    restored = gd.deconvolve(image, psf, "cls", gamma="gcv", edges="periodic", device="cpu")
    assert score(gamma_used(image, psf, restored)) < 1.0005 * best


@pytest.mark.parametrize("edges", ["periodic", "extend"])
def test_gcv_is_near_the_best_gamma(noisy_scene, edges):
    """With windowed data, too: the window multiplies V by a constant.  There a frame is cut out of the scene."""
    image, truth, psf, _ = noisy_scene
    frame = (slice(None),) * 3 if edges == "periodic" else (slice(4, -4), slice(8, -8), slice(8, -8))
    inside = (slice(None),) * 3 if edges == "periodic" else (slice(6, -6), slice(8, -8), slice(8, -8))

    def error(gamma):
        restored = gd.deconvolve(image[frame], psf, "cls", gamma=gamma, edges=edges, device="cpu")
        return nrmse(restored[inside], truth[frame][inside])

    assert error("gcv") < 1.05 * min(error(10.0**-e) for e in np.arange(-1, 8, 0.5))


@pytest.mark.parametrize("method", ["wiener", "cls", "inverse"])
def test_a_stack_thinner_than_the_psf_is_warned_of(rng, method):
    """The PSF's planes hold 1, 2, 5, 8, 5, 2, 1 parts of 24: 90 % of the light is in five of them."""
    lateral = np.exp(-(np.linspace(-1.5, 1.5, 7)[:, None] ** 2 + np.linspace(-1.5, 1.5, 7) ** 2))
    psf = (np.array([1, 2, 5, 8, 5, 2, 1])[:, None, None] / 24 * lateral / lateral.sum()).astype(np.float32)
    image = rng.poisson(100, (5, 24, 25)).astype(np.float32)
    options = {"wiener": {"noise_to_signal": 0.1}, "cls": {"gamma": 0.1}}.get(method, {})
    gd.deconvolve(image, psf, method, device="cpu", **options)
    gd.deconvolve(image[:1], psf, method, edges="periodic", device="cpu", **options)
    gd.deconvolve(image[0], psf[3] / psf[3].sum(), method, device="cpu", **options)
    with pytest.warns(gd.GpudeconWarning, match="4 planes, but most of the PSF's light is spread over 5.*use 'rl'"):
        gd.deconvolve(image[:4], psf, method, device="cpu", **options)
    with pytest.warns(gd.GpudeconWarning, match=r"1 plane, but .*plane in focus as a PSF \(y, x\)"):
        gd.deconvolve(image[:1], psf, method, device="cpu", **options)
