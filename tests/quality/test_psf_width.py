"""A PSF that is too wide is found by a narrower one, which predicts held-out counts better."""

import functools
import warnings

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.deconvolve import Deconvolver
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.quality import psf_width
from gpudecon.simulate import expose, phantom

SHAPE, VOXEL, WINDOW = (18, 56, 57), (0.25, 0.12, 0.12), (13, 25, 25)
CAMERA = gd.Camera(100, 2.0, 1.5)
OPTICS = gd.Optics(
    na=1.2, emission_nm=520, immersion_index=1.33, modality="confocal", excitation_nm=488, pinhole_au=1.0
)


@functools.lru_cache
def psf_of(factor):
    """The true PSF stretched along all axes."""
    return gd.theoretical_psf(OPTICS, WINDOW, tuple(v / factor for v in VOXEL)).array


@functools.lru_cache
def recorded(name, photons, seed=3):
    whole = phantom(name, tuple(n + w - 1 for n, w in zip(SHAPE, WINDOW, strict=True)), VOXEL, seed=seed)
    psf = gd.PSF(psf_of(1.0), VOXEL)
    image, _ = expose(whole, psf, peak_photons=photons, haze_photons=8, camera=CAMERA, seed=seed)
    return image[tuple(slice(w // 2, w // 2 + n) for n, w in zip(SHAPE, WINDOW, strict=True))]


def checked(image, factor, **options):
    options = {"background": 116.0, "camera": CAMERA, **options}
    mask = options.pop("mask", None)
    return Deconvolver(image.shape, psf_of(factor), device="cpu", **options).check_psf(image, mask=mask)


@pytest.mark.parametrize(("name", "photons"), [("filaments", 200), ("beads", 2000), ("shells", 200), ("nuclei", 200)])
def test_half_again_too_wide_is_found_and_the_true_width_is_not(name, photons):
    """In dense specimens of 200 photons, too, where the residual alone does not tell."""
    image = recorded(name, photons)
    finding = checked(image, 1.5)
    assert finding is not None
    assert finding.deviations > psf_width.DEVIATIONS
    assert checked(image, 1.0) is None


@pytest.mark.parametrize("name", ["filaments", "nuclei"])
def test_the_true_width_is_not_found_in_weak_light(name):
    assert checked(recorded(name, 20), 1.0) is None


@pytest.mark.parametrize(("name", "photons"), [("filaments", 200), ("beads", 2000)])
def test_the_camera_is_read_off_the_noise_where_it_is_not_told(name, photons):
    """Its offset is no light: dealt like light, it halves the deviations."""
    image = recorded(name, photons)
    found, known = checked(image, 1.5, camera=None), checked(image, 1.5)
    assert found is not None
    assert known is not None
    assert found.deviations == pytest.approx(known.deviations, rel=1 / 3)
    assert checked(image, 1.0, camera=None) is None


def test_masks_and_varying_backgrounds_are_taken(rng):
    image = recorded("nuclei", 2000).copy()
    mask = rng.random(SHAPE) > 0.02
    image[~mask] = 60000
    background = np.full(SHAPE, 116.0, np.float32)
    background[:, :20] += 1
    assert checked(image, 1.5, mask=mask, background=background) is not None
    assert checked(image, 1.0, mask=mask, background=background) is None


def test_the_brightest_part_of_a_large_image_is_taken(monkeypatch):
    """Noise on dark ground around the specimen changes nothing but the place where it is looked for."""
    monkeypatch.setattr(psf_width, "REGION", SHAPE)
    image = recorded("nuclei", 200)
    alone = checked(image, 1.5)
    around = np.full((18, 112, 114), 116, image.dtype)
    around[:, 56:, 57:] = image
    found = checked(around, 1.5)
    assert alone is not None
    assert found is not None
    assert found.deviations == pytest.approx(alone.deviations, rel=1e-3)


def test_a_call_warns_where_it_is_asked_to():
    image = recorded("nuclei", 200)
    options = {"background": 116.0, "camera": CAMERA, "device": "cpu", "iterations": 2}
    with pytest.warns(GpudeconWarning, match="too wide: one narrower by 1.5 predicts"):
        gd.deconvolve(image, psf_of(1.5), check_psf=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gd.deconvolve(image, psf_of(1.0), check_psf=True, **options)


def test_what_cannot_be_checked_is_said():
    image = recorded("nuclei", 200)
    with pytest.raises(InputError, match="median has no PSF"):
        Deconvolver(image.shape, None, "median", device="cpu").check_psf(image)
    with pytest.raises(InputError, match="was made for"):
        Deconvolver(image.shape, psf_of(1.0), device="cpu").check_psf(image[1:])


@pytest.mark.parametrize("planes", [2, 3, 4])
def test_a_psf_of_few_planes_can_be_asked_about(planes):
    """Where the specimen is even along z a PSF cut short along z is right."""
    image = np.repeat(recorded("nuclei", 2000)[9:10], 4, axis=0)
    psf = np.repeat(psf_of(1.0).sum(axis=0)[None] / planes, planes, axis=0)
    decon = Deconvolver(image.shape, psf, device="cpu", background=116.0, camera=CAMERA)
    assert decon.check_psf(image) is None
