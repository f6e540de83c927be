"""Gain, offset, read noise and signal-to-noise ratio against the camera that was simulated."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.forward import ForwardModel, Unblurred
from gpudecon.methods.noise import counts_of, snr_of
from gpudecon.methods.problem import Problem
from gpudecon.quality.noise import estimate_camera, signal_to_noise
from gpudecon.simulate import PHANTOMS, expose, phantom, record

SHAPE = (40, 128, 128)
CAMERA = Camera(offset=100, gain=2.0, read_noise=1.5)
OPTICS = {
    "widefield": (gd.Optics(na=1.2, emission_nm=520, immersion_index=1.33), (0.2, 0.1, 0.1)),
    "confocal": (
        gd.Optics(
            na=1.2, emission_nm=520, immersion_index=1.33, modality="confocal", excitation_nm=488, pinhole_au=1.0
        ),
        (0.18, 0.07, 0.07),
    ),
    "light-sheet": (
        gd.Optics(na=0.8, emission_nm=520, immersion_index=1.33, modality="light-sheet", sheet_waist_um=1.5),
        (0.25, 0.12, 0.12),
    ),
}


def problem_of(image, psf, **given):
    model = ForwardModel(get_backend("cpu", threads=1), image.shape, psf.array)
    return Problem(model.backend, model, image, 100.0, (1.0, 1.0, 1.0), float(image.max()), **given)


@pytest.fixture(scope="module", params=list(OPTICS))
def scenes(request):
    """A function (phantom, photons) -> (image, PSF, photons of haze), for each optic."""
    optics, voxel = OPTICS[request.param]
    psf = gd.theoretical_psf(optics, (23, 41, 41), voxel)
    truth_of = functools.cache(lambda name: phantom(name, SHAPE, voxel, seed=0))

    def make(name, photons):
        haze = 0.1 * photons
        image, _ = expose(truth_of(name), psf, peak_photons=photons, haze_photons=haze, camera=CAMERA, seed=1)
        return image, psf, haze

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("photons", "tolerance"), [(20, 0.15), (200, 0.05), (2000, 0.05)], ids=str)
@pytest.mark.parametrize("name", PHANTOMS)
def test_gain_and_snr_of_phantoms(scenes, name, photons, tolerance):
    """The beads miss the target in two of nine cases (6 % and 23 %): only a few hundred of their voxels hold light."""
    image, psf, haze = scenes(name, photons)
    problem = problem_of(image, psf)
    if name == "beads":
        tolerance *= 2
    gain, dark = counts_of(problem)
    assert gain == pytest.approx(CAMERA.gain, rel=tolerance)
    # where the variance would be 0: the read noise's variance below the offset
    expected = CAMERA.offset - CAMERA.gain * CAMERA.read_noise**2
    assert dark == pytest.approx(expected, abs=0.05 * CAMERA.gain * photons + 5)
    expected = photons / np.sqrt(photons + haze + CAMERA.read_noise**2)
    assert 0.75 < snr_of(problem) / expected < 1.1


def ramp(rng, camera, shape=(40, 96, 100), photons=200.0):
    """A smooth scene whose first fifth is dark."""
    light = photons * np.clip(np.linspace(-0.25, 1, shape[2]), 0, None)
    return record(np.broadcast_to(light, shape), camera, rng)


@pytest.mark.parametrize("camera", [Camera(100, 2.0, 3.0), Camera(400, 0.5, 6.0), Camera(20, 8.0, 1.0)])
def test_camera_is_read_off_an_image_with_a_dark_region(rng, camera):
    """Offset within 1 grey level and 1 %, gain within 5 %; read noise within 20 % where it is several grey values."""
    found = estimate_camera(ramp(rng, camera))
    assert found.offset == pytest.approx(camera.offset, abs=1 + 0.01 * camera.offset)
    assert found.gain == pytest.approx(camera.gain, rel=0.05)
    assert found.read_noise == pytest.approx(camera.read_noise, rel=0.2)


def test_what_is_given_is_kept_and_planes_and_masks_work(rng):
    camera = Camera(100, 2.0, 3.0)
    image = ramp(rng, camera)
    kept = estimate_camera(image, offset=90.0, gain=3.0, read_noise=1.0)
    assert kept == Camera(90.0, 3.0, 1.0)
    plane = ramp(rng, camera, (1, 500, 500))[0]
    assert estimate_camera(plane).gain == pytest.approx(2.0, rel=0.05)
    hot = rng.random(image.shape) < 2e-4
    spoiled = np.where(hot, 60000, image)
    assert estimate_camera(spoiled, mask=~hot).gain == pytest.approx(2.0, rel=0.08)


def test_an_even_noise_does_not_tell_the_gain(rng):
    with pytest.raises(InputError, match="give gain="):
        estimate_camera(rng.normal(1000, 5, (30, 60, 60)).astype(np.float32))


def test_gain_is_that_of_scaled_counts_without_a_psf_with_a_mask_and_with_any_unit(rng):
    backend = get_backend("cpu", threads=1)
    light = 50 * np.clip(np.linspace(0.2, 4, 100), 0, None)
    image = rng.poisson(np.broadcast_to(light, (30, 80, 100))).astype(np.float32)
    delta = np.zeros((3, 3, 3), np.float32)
    delta[1, 1, 1] = 1
    models = [Unblurred(backend, image.shape), ForwardModel(backend, image.shape, delta)]
    mask = (rng.random(image.shape) > 1e-3).astype(np.uint8)
    for model in models:
        for unit in (1.0, 1e-20, 1e15):
            data = image * np.float32(unit)
            problem = Problem(backend, model, data, 0.0, (1.0, 1.0, 1.0), float(data.max()))
            assert counts_of(problem)[0] == pytest.approx(unit, rel=0.05)
            assert counts_of(dataclasses.replace(problem, mask=mask))[0] == pytest.approx(unit, rel=0.05)
            assert counts_of(dataclasses.replace(problem, gain=7.0)) == (7.0, 0.0)


def test_snr_is_not_that_of_noise_spikes(rng):
    """20 photons at the peak of a blurred blob: SNR 20 / sqrt(22); the noise's largest value would give far more."""
    blob = np.zeros((25, 80, 81))
    blob[12, 40, 40] = 1
    shape = ndimage.gaussian_filter(blob, 3)
    image = rng.poisson(20 * shape / shape.max() + 2) * 2.0 + 100
    psf = ndimage.gaussian_filter(np.pad(np.ones((1, 1, 1)), 7), 2).astype(np.float32)
    for camera in (Camera(100, 2.0, 0.0), None):
        found = signal_to_noise(image, psf, background=104.0, camera=camera)
        assert found == pytest.approx(20 / np.sqrt(22), rel=0.25)
    assert signal_to_noise(image, background=104.0, camera=Camera(100, 2.0)) == pytest.approx(4.26, rel=0.25)


def test_what_is_not_finite_is_refused_where_it_is_measured(rng):
    image = ramp(rng, Camera(100, 2.0, 3.0)).astype(np.float32)
    image[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="The image holds 1 NaN"):
        signal_to_noise(image)
    with pytest.raises(InputError, match="The image holds 1 NaN"):
        estimate_camera(image)
    for kind in (bool, np.uint8):
        assert estimate_camera(image, mask=np.isfinite(image).astype(kind)).gain == pytest.approx(2.0, rel=0.05)
