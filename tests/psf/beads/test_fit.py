"""fit_pupil: the derivative against differences, coefficients against the truth."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.psf.pupil_model import PupilModel

VOXEL_UM = (0.2, 0.065, 0.065)
SHAPE = (11, 23, 22)
INTO_WATER = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515, sample_index=1.36, depth_um=0.2)


@pytest.mark.parametrize("diameter", [None, 0.15])
@pytest.mark.parametrize("medium", ["oil", "water"])
def test_derivative(optics, medium, diameter):
    optics = optics if medium == "oil" else INTO_WATER  # there, two zones more: NA above the specimen's index
    model = PupilModel(optics, (3, 6, 5), VOXEL_UM, (5, 8, 11), diameter)
    at = np.array([0.05, 0.02, -0.03, 0.2, -0.1, 0.3])
    slope = np.random.default_rng(0).normal(size=(3, 6, 5))
    _, adjoint = model.intensity_and_adjoint(at)
    steps = 1e-4 * np.eye(6)
    direct = [((model.intensity(at + s) - model.intensity(at - s)) * slope).sum() / 2e-4 for s in steps]
    np.testing.assert_allclose(adjoint(slope), direct, rtol=1e-4, atol=1e-5)


def test_model_is_pupil_psf(optics):
    coefficients = {5: 0.2, 7: -0.15, 11: 0.4}
    model = PupilModel(optics, SHAPE, VOXEL_UM, tuple(coefficients))
    intensity = model.intensity(np.array([0, 0, 0, *coefficients.values()]))
    other = gd.pupil_psf(optics, SHAPE, VOXEL_UM, coefficients).array
    np.testing.assert_allclose(intensity / intensity.sum(), other, atol=1e-5 * other.max())


def counts(optics, coefficients, peak, seed):
    ideal = gd.pupil_psf(optics, SHAPE, VOXEL_UM, coefficients).array.astype(float)
    return np.random.default_rng(seed).poisson(ideal * (peak / ideal.max()) + 5)


@pytest.mark.slow
@pytest.mark.parametrize(("peak", "largest_mrad"), [(2000, 10), (200, 20)])
def test_coefficients(optics, peak, largest_mrad):
    rng = np.random.default_rng(peak)
    truth = {j: float(c) for j, c in zip(range(5, 16), rng.normal(scale=0.2, size=11), strict=True)}
    fit = gd.fit_pupil(counts(optics, truth, peak, 3), optics, VOXEL_UM)
    error = 1e3 * np.array([fit.zernike_rad[j] - truth[j] for j in truth])
    assert np.sqrt(np.mean(error**2)) < largest_mrad
    assert fit.shift_um == pytest.approx((0, 0, 0), abs=0.01)
    assert fit.background == pytest.approx(5, abs=0.2)
    assert fit.deviance == pytest.approx(1.03, abs=0.08)
    again = fit.psf((21, 33, 33), (0.15, 0.07, 0.07)).array
    expected = gd.pupil_psf(optics, (21, 33, 33), (0.15, 0.07, 0.07), truth).array
    assert np.linalg.norm(again - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("spherical", [1.5, -1.5])
def test_large_spherical_aberration_is_found_with_its_sign(optics, spherical):
    fit = gd.fit_pupil(counts(optics, {11: spherical}, 2000, 4), optics, VOXEL_UM, modes=[11, "coma x"])
    assert fit.zernike_rad[11] == pytest.approx(spherical, abs=0.02)
    assert fit.zernike_rad[8] == pytest.approx(0, abs=0.02)


def test_grey_values(optics):
    """Offset and gain of a camera come off; a shifted bead is found where it is."""
    ideal = PupilModel(optics, SHAPE, VOXEL_UM, (8,)).intensity(np.array([0.1, 0.065, -0.13, 0.3]))
    image = 100 + 2 * np.random.default_rng(5).poisson(2000 * ideal + 5)
    fit = gd.fit_pupil(image, optics, VOXEL_UM, modes=[8], offset=100, gain=2.0)
    assert fit.zernike_rad[8] == pytest.approx(0.3, abs=0.02)
    assert fit.shift_um == pytest.approx((0.1, 0.065, -0.13), abs=0.005)
    assert fit.photons == pytest.approx(2000, rel=0.02)
    assert fit.deviance == pytest.approx(1.03, abs=0.08)


def test_refused(optics):
    image = counts(optics, {}, 1000, 6)
    confocal = gd.Optics(**COMMON, modality="confocal", excitation_nm=488, pinhole_au=1.0)
    for change, message in (
        ({"optics": confocal}, "'widefield' microscopes only"),
        ({"modes": [4, 5]}, "above Noll's 4"),
        ({"modes": [5, 5]}, "different ones"),
        ({"bead": image[0]}, "give .z, y, x. with at least 3 planes"),
        ({"voxel_um": None}, "voxel size of the bead is not known"),
        ({"gain": 0}, "the gain above 0"),
        ({"bead": np.ones(SHAPE)}, "Nothing stands out"),
        ({"bead_diameter_um": 1.0}, "too large"),
    ):
        with pytest.raises(InputError, match=message):
            gd.fit_pupil(**{"bead": image, "optics": optics, "voxel_um": VOXEL_UM} | change)
    with pytest.warns(GpudeconWarning, match="did not settle in 1 iterations"):
        gd.fit_pupil(image, optics, VOXEL_UM, modes=[5, 6], iterations=1)


COMMON = {"na": 1.4, "emission_nm": 520, "immersion_index": 1.515}
