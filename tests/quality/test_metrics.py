"""Metrics against closed forms and scikit-image."""

import numpy as np
import pytest
from scipy import ndimage

from gpudecon.errors import InputError
from gpudecon.quality.background import estimate_background
from gpudecon.quality.fourier_correlation import fourier_correlation, resolution_um
from gpudecon.quality.metrics import nrmse, psnr, ssim


def test_nrmse_ignores_scale_and_offset_and_is_pearsons(rng):
    truth, noise = rng.random((7, 9, 11)), rng.normal(size=(7, 9, 11))
    assert nrmse(3 * truth + 40, truth) < 1e-7
    image = truth + 0.2 * noise
    r = np.corrcoef(image.ravel(), truth.ravel())[0, 1]
    assert nrmse(image, truth) == pytest.approx(np.sqrt(1 - r**2), rel=1e-9)
    assert nrmse(np.ones_like(truth), truth) == pytest.approx(1)


def test_nrmse_is_the_minimum_over_affine_maps(rng):
    truth, image = rng.random((2, 6, 5, 8))
    errors = [
        np.sqrt(np.mean((a * image + b - truth) ** 2)) / truth.std()
        for a in np.linspace(-1, 1, 81)
        for b in np.linspace(-1, 1, 81)
    ]
    assert nrmse(image, truth) <= min(errors) <= nrmse(image, truth) + 1e-3


def test_identical_images_correlate_fully(rng):
    image = rng.random((12, 20, 22))
    for direction in ("xy", "z"):
        frequency, correlation = fourier_correlation(image, image * 2 + 1, (0.3, 0.1, 0.1), direction)
        np.testing.assert_allclose(correlation, 1, atol=1e-9)
        assert frequency[-1] <= 0.5 / 0.1 + 1e-9
    assert resolution_um(image, image, (0.3, 0.1, 0.1)) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(("direction", "cutoff"), [("xy", 2.0), ("z", 1.0)])
def test_resolution_finds_the_frequency_where_noise_takes_over(rng, direction, cutoff):
    """White truth; beyond the cut-off the image is independent noise, so the correlation drops from 1 to 0 there."""
    shape, voxel = (48, 96, 90), (0.2, 0.1, 0.1)
    truth, noise = rng.normal(size=(2, *shape))
    frequency = np.sqrt(
        sum(
            f**2 for f in np.meshgrid(*(np.fft.fftfreq(n, v) for n, v in zip(shape, voxel, strict=True)), indexing="ij")
        )
    )
    low = frequency <= cutoff
    image = np.fft.ifftn(np.where(low, np.fft.fftn(truth), np.fft.fftn(noise))).real
    assert resolution_um(image, truth, voxel, direction) == pytest.approx(1 / cutoff, rel=0.06)


def test_metrics_refuse_what_cannot_be_compared(rng):
    with pytest.raises(InputError, match="must be the same"):
        nrmse(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(InputError, match="constant"):
        nrmse(rng.random((2, 3)), np.ones((2, 3)))
    with pytest.raises(InputError, match="use 'xy'"):
        fourier_correlation(np.ones((4, 4)), np.ones((4, 4)), (0.1, 0.1), "z")


@pytest.mark.parametrize("shape", [(20, 60, 61), (61, 70)])
@pytest.mark.parametrize("level", [100.0, 0.0])
def test_background_is_the_dark_level_and_never_the_specimen(rng, shape, level):
    specimen = ndimage.gaussian_filter((rng.random(shape) > 0.9995) * 4e4, 2)
    image = rng.poisson(specimen + level)
    found = estimate_background(image)
    assert level - 3 * np.sqrt(level) <= found <= level + 1


@pytest.mark.parametrize("shape", [(31, 40), (17, 23, 26)])
def test_psnr_and_ssim_are_those_of_scikit_image(rng, shape):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    truth = ndimage.gaussian_filter(rng.random(shape), 1.5) * 100
    image = truth + rng.normal(size=shape)
    extent = truth.max() - truth.min()
    expected = metrics.peak_signal_noise_ratio(truth, image, data_range=extent)
    assert psnr(image, truth, match=False) == pytest.approx(expected, rel=1e-9)
    expected = metrics.structural_similarity(
        truth, image, data_range=extent, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(image, truth, match=False) == pytest.approx(expected, rel=1e-9)


def test_psnr_and_ssim_match_intensities_first(rng):
    truth = ndimage.gaussian_filter(rng.random((20, 25)), 1)
    assert psnr(truth, truth, match=False) == np.inf
    assert ssim(3 * truth - 7, truth) == pytest.approx(1, abs=1e-9)
    image = truth + 0.1 * rng.normal(size=truth.shape)
    by_nrmse = -20 * np.log10(nrmse(image, truth) * truth.std() / np.ptp(truth))
    assert psnr(5 * image + 3, truth) == pytest.approx(by_nrmse, rel=1e-9)
    assert psnr(np.ones_like(truth), truth) == pytest.approx(20 * np.log10(np.ptp(truth) / truth.std()), rel=1e-9)
    with pytest.raises(InputError, match="constant"):
        psnr(truth, np.ones_like(truth))
    with pytest.raises(InputError, match="at least 11"):
        ssim(truth[:9], truth[:9])


@pytest.mark.parametrize("metric", [nrmse, psnr, ssim])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_has_no_error(rng, metric, wrong):
    truth = rng.random((20, 25))
    spoiled = truth.copy()
    spoiled[3, 4] = wrong
    with pytest.raises(InputError, match="The image holds 1 NaN or infinite voxels"):
        metric(spoiled, truth)
    with pytest.raises(InputError, match="What it is compared with holds 1 NaN or infinite voxels"):
        metric(truth, spoiled)
