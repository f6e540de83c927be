"""Residuals: statistics of a right model, and the finding of a PSF that is too wide."""

import functools
import warnings

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.camera import Camera
from gpudecon.deconvolve import Deconvolver
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.quality.residual import (
    _cells,
    _residual,
    autocorrelation,
    chi_square_map,
    normalised_residual,
    unexplained,
)
from gpudecon.recording import problem_of
from gpudecon.simulate import expose, phantom

VOXEL = (0.25, 0.12, 0.12)
OPTICS = gd.Optics(na=0.8, emission_nm=520, immersion_index=1.33, modality="light-sheet", sheet_waist_um=1.5)


WINDOW = (17, 31, 31)


@functools.lru_cache
def wide_psf(factor):
    """The true PSF stretched along all axes: computed on a finer grid and taken for this one."""
    return gd.theoretical_psf(OPTICS, WINDOW, tuple(v / factor for v in VOXEL)).array


@functools.lru_cache
def specimen(name):
    return phantom(name, (40, 106, 106), VOXEL, seed=0)


@functools.lru_cache
def recording(name, photons):
    """(image with specimen beyond its edges, its background)."""
    camera = Camera(100, 2 if photons <= 2000 else 1, 1.5)  # the brightest would saturate with a gain of 2
    psf = gd.PSF(wide_psf(1.0), VOXEL)
    image, _ = expose(specimen(name), psf, peak_photons=photons, haze_photons=0.1 * photons, camera=camera, seed=1)
    return image[8:32, 15:91, 15:91], 100 + 0.1 * camera.gain * photons


def is_warned(image, psf, background, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gd.deconvolve(image, psf, background=background, device="cpu", **options)
    assert all(issubclass(w.category, GpudeconWarning) for w in caught)
    return any("finer than the PSF lets through" in str(w.message) for w in caught)


def findings(image, psf, background, looks, **options):
    """What the check that ends a restoration finds after each of these numbers of iterations."""
    decon = Deconvolver(image.shape, psf, device="cpu", background=background, iterations=max(looks), **options)
    problem = problem_of(image, None, decon.conditions, decon.method, decon._model, decon._voxel_um)
    estimates = enumerate(decon.method.iterate(problem), start=1)
    return [unexplained(problem, estimate) for k, estimate in estimates if k in looks]


@pytest.mark.parametrize(
    ("name", "photons"), [("filaments", 200), ("filaments", 2000), ("beads", 200), ("shells", 2000)]
)
def test_a_psf_that_is_half_again_too_wide_is_warned_of(name, photons):
    image, background = recording(name, photons)
    assert is_warned(image, wide_psf(1.5), background, iterations=10)
    assert all(findings(image, wide_psf(1.5), background, looks=(30,), acceleration="shb"))


@pytest.mark.parametrize("name", ["filaments", "beads", "shells", "nuclei"])
@pytest.mark.parametrize("photons", [20, 200, 2000, 20000])
def test_the_true_psf_is_not_warned_of(name, photons):
    image, background = recording(name, photons)
    assert findings(image, wide_psf(1.0), background, looks=(1, 3, 10, 30), acceleration="shb") == [None] * 4


def test_a_call_with_the_true_psf_does_not_warn():
    image, background = recording("filaments", 2000)
    assert not is_warned(image, wide_psf(1.0), background, iterations=10)


@pytest.mark.parametrize("name", ["filaments", "beads"])
@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 1},
        {"iterations": 5, "back_projector": "wb"},
        {"iterations": 5, "method": "fista_tv"},
        {"iterations": 30, "method": "landweber"},
    ],
    ids=str,
)
def test_the_true_psf_is_not_warned_of_in_a_thin_image(name, options):
    """Coarse structure that is not explained yet leaks further where the image fades within few planes."""
    image, background = recording(name, 2000)
    assert not is_warned(np.ascontiguousarray(image[2:22, 2:74, 2:74]), wide_psf(1.0), background, **options)


@pytest.mark.parametrize("points", [0, 4])
def test_independent_frequencies_are_those_that_the_spread_of_the_power_tells(asymmetric_psf, rng, points):
    """Relative variance of the mean power of noise: 1 / number, here of 300 images (known within 4 sqrt(2 / 300))."""
    light = np.full((1, 60, 65), 5.0)
    for y, x in rng.integers(20, 40, (points, 2)):
        light[0, y : y + 2, x : x + 2] = 2000
    means = []
    for _ in range(300):
        image = rng.poisson(light).astype(np.float32)
        decon = Deconvolver(image.shape, asymmetric_psf((1, 7, 9)), device="cpu", background=light.astype(np.float32))
        problem = problem_of(image, None, decon.conditions, decon.method, decon._model, decon._voxel_um)
        estimate = problem.model.empty()
        estimate[...] = 0
        cells = _cells(problem, _residual(problem, problem.model.blur(estimate)))
        outer = np.arange(cells.power.shape[1])[None] > 8
        means.append(cells.mean(cells.power, outer & (cells.number > 0)) * problem.highest**2)
    spread = np.var(means) / np.mean(means) ** 2
    assert cells.number[outer & (cells.number > 0)].sum() * spread == pytest.approx(1, abs=4 * np.sqrt(2 / 300))


@pytest.mark.parametrize("shape", [(9, 20, 21), (1, 60, 61), (24, 40, 41)])
@pytest.mark.parametrize("edges", ["extend", "reflect", "periodic"])
def test_noise_alone_is_not_warned_of(rng, shape, edges):
    for level in (0.5, 50):
        image = rng.poisson(level, shape).astype(np.float32)
        assert not is_warned(image, wide_psf(1.5), 0.0, edges=edges, iterations=10)


def test_normalised_residual_is_white_with_unit_variance(rng):
    """Of N voxels: variance within 4 sqrt(2 / N) (a little more for the tails of Poisson), neighbours 4 / sqrt(N)."""
    camera = Camera(100, 2.5, 2.0)
    expected = 100 + 2.5 * rng.uniform(20, 300, (21, 50, 60))
    electrons = rng.poisson((expected - 100) / 2.5) + rng.normal(scale=2.0, size=expected.shape)
    residual = normalised_residual(100 + 2.5 * electrons, expected, camera)
    assert residual.var() == pytest.approx(1, abs=5 * np.sqrt(2 / residual.size))
    assert max(np.abs(autocorrelation(residual))) < 4 / np.sqrt(residual.size)
    chi = chi_square_map(residual, 5)
    assert chi.shape == residual.shape
    assert chi.mean() == pytest.approx(1, abs=0.05)
    residual[5:12, 20:30, 30:40] *= 3
    assert chi_square_map(residual, 5)[8, 25, 35] == pytest.approx(9, rel=5 * np.sqrt(2 / 125))


def test_autocorrelation_is_that_of_a_moving_average(rng):
    """The sum of two neighbours correlates by 1/2 along that axis and by 0 along the others."""
    noise = rng.normal(size=(20, 101, 100))
    found = autocorrelation(noise[:, :-1] + noise[:, 1:])
    np.testing.assert_allclose(found, (0, 0.5, 0), atol=5 / np.sqrt(noise.size))
    assert np.isnan(autocorrelation(noise[:1])[0])


def test_chi_square_map_is_a_plain_local_mean(rng):
    residual = rng.normal(size=(7, 9, 11))
    assert chi_square_map(residual, 3)[3, 4, 5] == pytest.approx((residual[2:5, 3:6, 4:7] ** 2).mean())
    with pytest.raises(InputError, match="window is 0"):
        chi_square_map(residual, 0)
