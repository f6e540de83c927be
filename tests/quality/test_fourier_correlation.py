"""Fourier correlation and decorrelation on spectra whose cut-off frequency is known."""

import numpy as np
import pytest

from gpudecon.errors import InputError
from gpudecon.quality.decorrelation import decorrelation_resolution_um
from gpudecon.quality.fourier_correlation import (
    recording_resolution_um,
    resolution_um,
    shell_correlation,
    single_resolution_um,
    split_counts,
)


def radius(shape, voxel):
    axes = [np.fft.fftfreq(n, v) for n, v in zip(shape, voxel, strict=True)]
    return np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))


def low_passed(rng, shape, voxel, cut):
    """White noise without its frequencies above ``cut``, standard deviation 1."""
    image = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * (radius(shape, voxel) <= cut)).real
    return image / image.std()


CASES = [((128, 150), (0.1, 0.1), 2.0), ((201, 181), (0.1, 0.1), 3.0), ((151, 170), (0.08, 0.1), 2.5)]


@pytest.mark.parametrize(("shape", "voxel", "cut"), CASES)
@pytest.mark.parametrize("threshold", [1 / 7, "half-bit"])
def test_two_recordings_have_the_known_cut_off(rng, shape, voxel, cut, threshold):
    """The Hann window smears the edge over 2 frequency steps to either side; interpolation adds half a step."""
    truth = low_passed(rng, shape, voxel, cut)
    first, second = (truth + 0.5 * rng.normal(size=shape) for _ in range(2))
    found = 1 / recording_resolution_um(first, second, voxel, threshold=threshold)
    step = max(1 / (n * v) for n, v in zip(shape, voxel, strict=True))
    assert abs(found - cut) <= 2.5 * step


@pytest.mark.parametrize(("shape", "voxel", "cut"), CASES)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_decorrelation_finds_the_known_cut_off(rng, shape, voxel, cut, noise):
    """One ring of frequencies to either side of the edge is smeared by the window, and rings are one step wide."""
    image = low_passed(rng, shape, voxel, cut) + noise * rng.normal(size=shape)
    step = max(1 / (n * v) for n, v in zip(shape, voxel, strict=True))
    assert abs(1 / decorrelation_resolution_um(image, voxel) - cut) <= 2 * step


@pytest.mark.parametrize("direction", ["xy", "z"])
def test_both_find_the_cut_off_of_a_volume_with_anisotropic_voxels(rng, direction):
    shape, voxel, cut = (61, 90, 81), (0.2, 0.1, 0.1), 1.6
    image = low_passed(rng, shape, voxel, cut)
    first, second = (image + 0.5 * rng.normal(size=shape) for _ in range(2))
    step = 1 / (81 * 0.1) if direction == "xy" else 1 / (61 * 0.2)
    assert abs(1 / recording_resolution_um(first, second, voxel, direction) - cut) <= 2.5 * step
    assert abs(1 / decorrelation_resolution_um(image, voxel, direction) - cut) <= 2 * step


def test_decorrelation_does_not_depend_on_scale_and_offset(rng):
    image = low_passed(rng, (101, 90), (0.1, 0.1), 2.0)
    once = decorrelation_resolution_um(image, (0.1, 0.1))
    assert decorrelation_resolution_um(image * 700 + 4000, (0.1, 0.1)) == pytest.approx(once, rel=1e-6)


def test_equal_images_are_resolved_to_the_sampling_and_noise_is_not(rng):
    image, other = rng.normal(size=(2, 100, 121))
    assert recording_resolution_um(image, image, (0.1, 0.1)) == pytest.approx(0.2, rel=0.03)
    assert recording_resolution_um(image, other, (0.1, 0.1), threshold="half-bit") == np.inf
    assert resolution_um(image, other, (0.1, 0.1)) == np.inf
    assert decorrelation_resolution_um(image, (0.1, 0.1)) == np.inf
    assert decorrelation_resolution_um(np.ones((20, 21)), (0.1, 0.1)) == np.inf


def test_correlation_of_signal_and_noise_is_its_closed_form(rng):
    """White signal of power 1 and noise of power 1 each: correlation r = 1/2.

    Over n complex coefficients its deviation is (1 - r^2) / sqrt(2 n).  Neighbours in other shells do not correlate
    within one, so that a shell may hold up to twice as many as counted (the Hann factor, 0.51, of one axis).
    """
    truth = rng.normal(size=(301, 300))
    first, second = (truth + rng.normal(size=truth.shape) for _ in range(2))
    curve = shell_correlation(first, second, (0.1, 0.1))
    outer = curve.independent > 100
    error = (curve.correlation - 0.5)[outer] * np.sqrt(curve.independent[outer])
    assert np.abs(error.mean()) < 3 / np.sqrt(len(error))
    expected = 0.75 / np.sqrt(2)
    assert expected * np.sqrt(0.5) < error.std() < expected * (1 + 3 / np.sqrt(2 * len(error)))
    n = 2 * np.pi * 150 * 0.514**2 / 2  # frequencies in the last ring, with the Hann factor of two axes, in pairs
    expected = (0.2071 + 1.9102 / np.sqrt(n)) / (1.2071 + 0.9102 / np.sqrt(n))
    assert curve.half_bit()[-1] == pytest.approx(expected, rel=0.02)


def test_halves_of_a_split_are_independent_and_add_up(rng):
    """Poisson counts split by a coin: mean and variance of half, no correlation (standard error 1 / sqrt n)."""
    counts = rng.poisson(30, (200, 210))
    first, second = split_counts(2.5 * counts + 100, gain=2.5, offset=100, seed=3)
    np.testing.assert_allclose(first + second, counts, atol=1e-6)
    assert first.mean() == pytest.approx(15, abs=4 * np.sqrt(15 / counts.size))
    assert first.var() == pytest.approx(15, rel=4 * np.sqrt(2 / counts.size))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(counts.size)
    again, _ = split_counts(2.5 * counts + 100, gain=2.5, offset=100, seed=3)
    assert (first == again).all()


def test_one_recording_is_as_fine_as_two_of_half_its_light(rng):
    shape, voxel, cut = (150, 161), (0.1, 0.1), 2.0
    light = 400 * np.maximum(1 + 0.3 * low_passed(rng, shape, voxel, cut), 0)
    found = single_resolution_um(2.0 * rng.poisson(light) + 100, voxel, gain=2.0, offset=100)
    assert abs(1 / found - cut) <= 2.5 / (150 * 0.1)


def test_impossible_questions_are_refused(rng):
    plane = rng.random((20, 21))
    with pytest.raises(InputError, match="use 'xy'"):
        decorrelation_resolution_um(plane, (0.1, 0.1), "z")
    with pytest.raises(InputError, match="gain is 0"):
        split_counts(plane, gain=0)
    with pytest.raises(InputError, match="The image holds 1 NaN"):
        split_counts(np.where(plane == plane.max(), np.nan, plane), gain=1)
    spoiled = plane.copy()
    spoiled[3, 4] = np.inf
    for ask in (
        lambda: resolution_um(spoiled, plane, (0.1, 0.1)),
        lambda: recording_resolution_um(plane, spoiled, (0.1, 0.1)),
        lambda: single_resolution_um(spoiled, (0.1, 0.1), gain=1),
        lambda: decorrelation_resolution_um(spoiled, (0.1, 0.1)),
    ):
        with pytest.raises(InputError, match="holds 1 NaN or infinite voxels"):
            ask()
    for threshold in ("half", "1/7", 0, 1.0, -0.1, np.nan, None):
        with pytest.raises(InputError, match=r"threshold is .*; give a correlation between 0 and 1, or 'half-bit'"):
            recording_resolution_um(plane, plane, (0.1, 0.1), threshold=threshold)


@pytest.mark.parametrize("n", [48, 64, 96])
@pytest.mark.parametrize("threshold", [1 / 7, 0.5, "half-bit"])
def test_a_fall_among_the_coarsest_shells_is_found_there(rng, n, threshold):
    """Signal and noise of variance 1; the signal ends at 0.9 / um, before shells hold enough coefficients.

    It has n^2 coefficients' power in pi (0.09 n)^2 of them, 39 times the noise, so its shells correlate nearly fully
    and what the Hann window leaks beyond the main lobe's 2 steps (-31 dB) is lost in the noise.  Shells of noise are
    mostly below the threshold, so most pairs fall where the signal ends.
    """
    found = []
    for _ in range(31):
        truth = low_passed(rng, (n, n), (0.1, 0.1), 0.9)
        first, second = (truth + rng.normal(size=truth.shape) for _ in range(2))
        found.append(1 / recording_resolution_um(first, second, (0.1, 0.1), threshold=threshold))
    assert abs(np.median(found) - 0.9) <= 2.5 / (n * 0.1)


@pytest.mark.parametrize(("shape", "direction"), [((64, 64), "xy"), ((16, 40, 40), "xy"), ((16, 40, 40), "z")])
def test_noise_has_hardly_ever_a_resolution(rng, shape, direction):
    """Its coarsest shells, of few coefficients, are above 1/7 by chance in most images."""
    found = [
        recording_resolution_um(*rng.normal(size=(2, *shape)), (0.1,) * len(shape), direction, threshold=0.5)
        for _ in range(25)
    ]
    assert np.mean(np.isfinite(found)) <= 0.08


def test_an_image_of_too_few_voxels_tells_no_resolution(rng):
    """6 x 6 pixels: 3 rings of at most 20 frequencies, of which the window leaves a quarter and k and -k are one."""
    first, second = rng.normal(size=(2, 6, 6))
    with pytest.raises(InputError, match="no shell of its spectrum holds 8 independent coefficients"):
        recording_resolution_um(first, second, (0.1, 0.1))
