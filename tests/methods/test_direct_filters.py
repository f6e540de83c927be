"""Wiener and constrained least squares against their formulas in float64, and the discrepancy rule."""

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
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
