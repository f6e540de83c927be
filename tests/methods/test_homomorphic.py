"""Homomorphic filter: known fields are flattened, the filter's law in frequency, and what it must not touch."""

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.errors import InputError

N = 96
Y, X = np.mgrid[:N, :N] / N


def to_one(field):
    return field / field.max()


FIELDS = {  # brightest over darkest is 5
    "vignette": to_one(np.exp(-np.log(5) * ((Y - 0.5) ** 2 + (X - 0.45) ** 2) / (0.5**2 + 0.55**2))),
    "ramp": to_one(1 + 4 * X),
    "diagonal": to_one(1 + 2 * X + 2 * Y),
}


@pytest.mark.parametrize("planes", [None, 12])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_five_to_one_is_flat_within_ten_percent(rng, name, planes):
    """A specimen of fine texture, 20 % of its brightness, in noise: what is left of the field follows from the gain."""
    shape = (N, N) if planes is None else (planes, N, N)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    specimen = 1 + 0.2 * texture / texture.std()
    image = rng.poisson(400 * np.clip(specimen, 0, None) * FIELDS[name]).astype(np.float32)
    filtered = gd.deconvolve(image, None, "homomorphic", device="cpu")
    seen = image > 0
    left = np.where(seen, filtered / np.where(seen, image, 1), 0).max(axis=0 if planes else ()) * FIELDS[name]
    # the field itself, averaged over what is shorter than illumination: a quarter of the side
    left = ndimage.uniform_filter(left, N // 4)
    assert (left / left.mean()).min() > 0.9
    assert (left / left.mean()).max() < 1.1
    assert filtered.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-5)


@pytest.mark.parametrize("low_gain", [0.0, 0.4])
@pytest.mark.parametrize("periods", [4, 8, 16])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_small_wave_is_passed_by_the_formula(low_gain, periods, axis):
    """g = 1 + e cos(2 pi k r): log g ~ e cos, and f ~ 1 + Phi(k) e cos.  Voxels are longer along y than along x."""
    voxel_um = (0.2, 0.1)
    n = (N, 2 * N)[axis]
    position = (np.arange(n) + 0.5) / n  # so that mirror images continue the wave
    wave = np.cos(2 * np.pi * periods * position)
    image = (
        1000 * (1 + 0.01 * wave) * np.ones((N, 2 * N)) if axis else 1000 * (1 + 0.01 * wave[:, None]) * np.ones(2 * N)
    )
    filtered = gd.deconvolve(
        image.astype(np.float32), None, "homomorphic", length_um=3.0, low_gain=low_gain, voxel_um=voxel_um, device="cpu"
    )
    passed = 2 * np.mean(filtered.mean(axis=1 - axis) / 1000 * wave) / 0.01
    k = periods / (n * voxel_um[axis])
    expected = 1 - (1 - low_gain) * np.exp(-((k * 3.0) ** 2) / 2)
    # second order in e, and the margin's fading of one mirror image into the other
    assert passed == pytest.approx(expected, abs=0.02)


def test_brightness_along_z_is_left_alone(rng):
    profile = np.array([1.0, 5.0, 2.0, 8.0, 3.0])
    image = (profile[:, None, None] * FIELDS["ramp"] * 100).astype(np.float32)
    filtered = gd.deconvolve(image, None, "homomorphic", device="cpu")
    means = filtered.mean(axis=(1, 2))
    np.testing.assert_allclose(means / means[0], profile / profile[0], rtol=1e-5)


def test_low_gain_one_changes_nothing(rng):
    image = rng.poisson(30 * np.ones((3, 20, 31))).astype(np.float32)
    filtered = gd.deconvolve(image, None, "homomorphic", low_gain=1.0, device="cpu")
    np.testing.assert_allclose(filtered, image, rtol=1e-6)


def test_zero_and_negative_values_stay_what_they_are(rng):
    image = rng.poisson(0.5 * FIELDS["ramp"] + 0.05, (4, N, N)).astype(np.float32) - 0.25 * (
        rng.random((4, N, N)) < 0.1
    )
    image = image.astype(np.float32)
    filtered = gd.deconvolve(image, None, "homomorphic", device="cpu")
    assert np.isfinite(filtered).all()
    assert (np.sign(filtered) == np.sign(image)).all()


def test_an_offset_must_be_taken_off_first(rng):
    """Stripes of equal contrast in the specimen are equal in the result only if the camera's offset is told."""
    stripes = np.where(np.arange(N) % 4 < 2, 1.0, -1.0)[:, None]
    light = rng.poisson(50 * (1 + 0.5 * stripes) * FIELDS["ramp"], (10, N, N))
    image = (light + 100).astype(np.float32)

    def contrast_on_the_right_over_left(filtered):
        contrast = (filtered.mean(axis=0) * stripes).mean(axis=0)
        return contrast[-N // 4 :].mean() / contrast[: N // 4].mean()

    told = gd.deconvolve(image, None, "homomorphic", background=100.0, device="cpu")
    untold = gd.deconvolve(image, None, "homomorphic", device="cpu")
    assert contrast_on_the_right_over_left(image) > 2.5
    assert contrast_on_the_right_over_left(told) == pytest.approx(1, abs=0.1)
    assert contrast_on_the_right_over_left(untold) > 1.8


@pytest.mark.parametrize("shape", [(1, 1, 9), (2, 1), (1, 2), (3, 2, 2)])
def test_tiny_images(shape):
    image = np.arange(1.0, np.prod(shape) + 1).reshape(shape).astype(np.float32)
    assert np.isfinite(gd.deconvolve(image, None, "homomorphic", device="cpu")).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length_um": 0.0}, "length_um is 0"),
        ({"length_um": "long"}, "length_um is 'long'; it must be 'auto' or a number"),
        ({"low_gain": 1.5}, "low_gain is 1.5; it must be from 0 to 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        gd.Homomorphic(**options)


def test_an_image_below_its_background_is_refused():
    with pytest.raises(InputError, match="not above the background 50"):
        gd.deconvolve(np.full((4, 5, 6), 40.0), None, "homomorphic", background=50.0, device="cpu")
