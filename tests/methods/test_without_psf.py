"""Methods that need no PSF in the driver, and backgrounds that are images, for every method that subtracts them."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import InputError

WITHOUT = [name for name, method in gd.METHODS.items() if not method.needs_psf]


@pytest.fixture
def image(rng):
    y, x = np.mgrid[:17, :22]
    return rng.poisson(60 + 30 * np.sin(y / 3) + 2 * x, (5, 17, 22)).astype(np.float32)


@pytest.mark.parametrize("method", WITHOUT)
def test_a_psf_is_warned_of_and_not_used(image, asymmetric_psf, method):
    with pytest.warns(gd.GpudeconWarning, match=f"{method} needs no PSF"):
        filtered = gd.deconvolve(image, asymmetric_psf((3, 4, 5)), method, device="cpu")
    assert (filtered == gd.deconvolve(image, None, method, device="cpu")).all()


@pytest.mark.parametrize("method", [name for name in gd.METHODS if gd.METHODS[name].needs_psf])
def test_a_psf_that_is_needed_is_asked_for(image, method):
    with pytest.raises(InputError, match=f"{method} needs a PSF"):
        gd.deconvolve(image, None, method, device="cpu")


@pytest.mark.parametrize("method", ["wiener", "cls", "inverse", "homomorphic"])
@pytest.mark.parametrize("edges", ["extend", "periodic"])
def test_a_background_image_is_subtracted(image, asymmetric_psf, rng, method, edges):
    level = rng.uniform(5, 15, image.shape).astype(np.float32)
    psf = asymmetric_psf((3, 4, 5)) if gd.METHODS[method].needs_psf else None
    options = {"wiener": {"noise_to_signal": 0.01}, "cls": {"gamma": 0.01}}.get(method, {})
    given = gd.deconvolve(image, psf, method, background=level, edges=edges, device="cpu", **options)
    before = gd.deconvolve(image - level, psf, method, edges=edges, device="cpu", **options)
    # two subtractions instead of one, and filters that amplify by up to 1 / 0.05
    np.testing.assert_allclose(given, before, atol=1e-4 * np.abs(before).max())


def test_filters_take_off_the_background_and_the_camera_offset(image):
    plain = gd.deconvolve(image, None, "median", device="cpu")
    for options in ({"background": 7.0}, {"camera": gd.Camera(7.0, 2.0, 1.5)}, {"background": np.full(image.shape, 7)}):
        taken = gd.deconvolve(image, None, "median", device="cpu", threshold=0.0, **options)
        whole = gd.deconvolve(image, None, "median", device="cpu", threshold=0.0)
        np.testing.assert_allclose(taken, whole - 7, atol=1e-4)
    assert plain.min() > 0
