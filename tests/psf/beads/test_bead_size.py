"""The size of beads, and the circles of a radial average, against direct sums."""

import warnings

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.optics import Optics
from gpudecon.psf.bead_size import FIRST_ZERO, ball_transfer, check_bead_size
from gpudecon.psf.finish import cropped, in_passband, nonnegative, without_bead
from gpudecon.psf.otf_support import otf_support
from gpudecon.psf.radial_average import radial_mean

from .simulated import VOXEL_UM, render


def in_ball(diameter, points=4000, seed=5):
    """Points spread evenly over a ball, antithetic so that the mean is exactly the middle."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(points // 2, 3))
    direction *= (diameter / 2 * rng.uniform(0, 1, (points // 2, 1)) ** (1 / 3)) / np.linalg.norm(
        direction, axis=1, keepdims=True
    )
    return np.concatenate([direction, -direction])


def test_transfer_is_the_mean_of_waves_over_a_ball():
    u, w = np.polynomial.legendre.leggauss(40)  # along a diameter, where the discs' areas go as 1 - u^2
    k = np.array([0.0, 1e-3, 1.0, 3.0, 5.3, 8.0])
    direct = np.cos(np.pi * 0.175 * np.outer(k, u)) @ (w * 0.75 * (1 - u**2))
    np.testing.assert_allclose(ball_transfer(k, 0.175), direct, atol=1e-9)
    assert ball_transfer(np.array(FIRST_ZERO / np.pi), 1.0) == pytest.approx(0, abs=1e-12)
    # at the cutoff of NA 1.4, 520 nm
    np.testing.assert_allclose(
        ball_transfer(2 * 1.4 / 0.52, np.array([0.1, 0.175, 0.2])), (0.74, 0.36, 0.24), atol=6e-3
    )


@pytest.mark.slow
def test_bead_size_is_taken_out(optics):
    """The image of a bead of 175 nm, as the sum of the images of its points, becomes that of a point."""
    shape = (33, 47, 47)
    middle = np.array(shape) // 2
    places = middle + in_ball(0.175, 160) / VOXEL_UM
    bead = np.mean([render(shape, p) for p in places], axis=0, dtype=float)
    point = render(shape, middle).astype(float)
    before, after = bead / bead.sum(), without_bead(bead / bead.sum(), VOXEL_UM, 0.175)
    after = in_passband(after, VOXEL_UM, otf_support(optics))
    truth = point / point.sum()

    def error(a):
        return np.linalg.norm(a - truth) / np.linalg.norm(truth)

    assert error(before) > 0.1
    assert error(after) < 0.02
    assert after.sum() == pytest.approx(1)


@pytest.mark.parametrize("diameter", [0.13, 0.175])
def test_bead_size_is_taken_out_where_the_ball_has_a_zero_in_the_band(optics, diameter):
    """A confocal passes the frequencies around it faintly, so that damping there costs little."""
    voxel = (0.1, 0.04, 0.04)
    confocal = Optics(**{**vars(optics), "modality": "confocal", "excitation_nm": 488, "pinhole_au": 1.0})
    point = gd.theoretical_psf(confocal, (33, 65, 65), voxel).array.astype(float)
    frequencies = np.meshgrid(*(np.fft.fftfreq(n, v) for n, v in zip(point.shape, voxel, strict=True)), indexing="ij")
    waves = np.zeros(point.shape)
    for place in in_ball(diameter, 600):
        waves += np.cos(2 * np.pi * sum(k * p for k, p in zip(frequencies, place, strict=True)))
    bead = np.fft.ifftn(np.fft.fftn(point) * waves / 600).real
    after = without_bead(bead, voxel, diameter)
    assert np.linalg.norm(bead - point) > 0.09 * np.linalg.norm(point)
    assert np.linalg.norm(after - point) < 0.02 * np.linalg.norm(point)  # as of a widefield, above


def test_large_beads_are_refused_and_middling_ones_warned_about(optics):
    check_bead_size(0.1, optics)
    check_bead_size(0.175, optics)
    with pytest.warns(GpudeconWarning, match="Beads of 0.2 um leave 24% of the finest details"):
        check_bead_size(0.2, optics)
    with pytest.raises(InputError, match=r"Beads of 0.27 um are too large for a PSF: above 0\.266 um"):
        check_bead_size(0.27, optics)
    with pytest.raises(InputError, match="bead_diameter_um is nan"):
        check_bead_size(float("nan"), None)


@pytest.mark.parametrize(
    "modality",
    [
        {"modality": "confocal", "excitation_nm": 488, "pinhole_au": 1.0},
        {"modality": "two-photon", "excitation_nm": 920},
        {"modality": "sted", "excitation_nm": 488, "sted_nm": 592, "sted_saturation": 20},
    ],
)
def test_the_limit_is_that_of_the_objective_in_every_modality(optics, modality):
    """0.715 * 520 / 1.4 = 266 nm; a ball of d lacks the period d / 1.43."""
    finer = Optics(na=optics.na, emission_nm=520, immersion_index=optics.immersion_index, **modality)
    check_bead_size(0.1, finer)
    for diameter in (0.13, 0.175):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            check_bead_size(diameter, finer)
        # 1.43 / d is within 2 NA (1 / emission + 1 / excitation) of the confocal, 11.1 per um, from 0.129 um on
        lacking = f"Beads of {diameter:g} um lack details of about {diameter / 1.4303:.2g} um"
        assert [str(w.message).startswith(lacking) for w in told] == [True] * (finer.modality == "confocal")
    with pytest.raises(InputError, match=r"above 0\.266 um"):
        check_bead_size(0.27, finer)


@pytest.mark.parametrize("shape", [(3, 33, 35), (2, 34, 32)])
@pytest.mark.parametrize("pixel", [(0.065, 0.065), (0.065, 0.08)])
def test_radial_mean_leaves_round_ones_alone(shape, pixel):
    planes = [
        render((1, *shape[1:]), (5.0 * i, shape[1] // 2, shape[2] // 2), 0, (0.1, *pixel))[0] for i in range(shape[0])
    ]
    planes = np.stack(planes).astype(float)
    if pixel[0] == pixel[1]:  # pixels that are not square make an image that is not round
        assert np.abs(radial_mean(planes, pixel) - planes).max() < 3e-3 * planes.max()
    turned = radial_mean(planes, pixel)
    again = radial_mean(turned, pixel)
    assert np.abs(again - turned).max() < 3e-3 * planes.max()


def test_radial_mean_is_the_mean_over_the_angle():
    y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in (41, 44)), indexing="ij")
    squared = (y**2 + x**2) / 18
    lopsided = np.exp(-squared) * (1 + 0.1 * x + 0.02 * x * y + 0.03 * (x**2 - y**2))
    np.testing.assert_allclose(radial_mean(lopsided, (1.0, 1.0)), np.exp(-squared), atol=1e-3)


def test_nonnegative_is_the_nearest_of_the_same_sum():
    rng = np.random.default_rng(2)
    array = rng.normal(size=(4, 5, 6)) + 0.3
    nearest = nonnegative(array)
    assert nearest.min() == 0
    assert nearest.sum() == pytest.approx(array.sum())
    for _ in range(200):
        other = rng.dirichlet(np.full(array.size, 0.3)).reshape(array.shape) * array.sum()
        mixed = nearest + 0.1 * (other - nearest)  # any other non-negative one of this sum is further away
        assert np.linalg.norm(mixed - array) > np.linalg.norm(nearest - array)
    np.testing.assert_allclose(nonnegative(nearest), nearest, atol=1e-12)


def test_crop_keeps_the_energy_and_the_centre(optics):
    array = gd.theoretical_psf(optics, (41, 65, 65), VOXEL_UM).array
    for energy in (0.9, 0.99):
        window = cropped(array, energy)
        assert energy <= window.sum() / array.sum() < energy + 0.02
        assert np.unravel_index(window.argmax(), window.shape) == tuple(n // 2 for n in window.shape)
    assert cropped(array, 1.0).shape == (41, 65, 65)
