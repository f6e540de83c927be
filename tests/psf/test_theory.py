"""The Gaussian PSF against its paper's limits and a direct integration."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import InputError
from gpudecon.psf.theory import gaussian_sigma_um


@pytest.mark.parametrize(("index", "wavelength"), [(1.0, 520), (1.33, 610)])
def test_widths_have_the_paraxial_limit(index, wavelength):
    """Zhang et al. 2007: sqrt(2) / (k na) laterally and 2 sqrt(6) n / (k na^2) axially for low NA."""
    na = 0.05
    optics = gd.Optics(na=na, emission_nm=wavelength, immersion_index=index)
    k = 2 * np.pi / (wavelength * 1e-3)
    lateral, axial = gaussian_sigma_um(optics)
    assert lateral == pytest.approx(np.sqrt(2) / (k * na), rel=1e-3)
    assert axial == pytest.approx(2 * np.sqrt(6) * index / (k * na**2), rel=1e-3)


def test_high_na_is_narrower_than_the_paraxial_formula():
    lateral, axial = gaussian_sigma_um(gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515))
    k = 2 * np.pi / 0.52
    assert 0.9 < lateral / (np.sqrt(2) / (k * 1.4)) < 1
    assert 0.6 < axial / (2 * np.sqrt(6) * 1.515 / (k * 1.4**2)) < 0.8


@pytest.mark.parametrize("shape", [(9, 14, 17), (8, 15, 16)])
def test_pixel_integration_is_the_mean_over_the_pixel(shape):
    optics, voxel = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515), (0.15, 0.1, 0.13)
    psf = gd.theoretical_psf(optics, shape, voxel, model="gaussian")
    lateral, axial = gaussian_sigma_um(optics)
    fine = 41
    sub = (np.arange(fine) - fine // 2) / fine
    lines = []
    for n, v, s, points in zip(shape, voxel, (axial, lateral, lateral), ([0.0], sub, sub), strict=True):
        x = (np.arange(n)[:, None] - n // 2 + np.asarray(points)) * v
        lines.append(np.exp(-((x / s) ** 2) / 2).mean(axis=1))
    expected = np.einsum("i,j,k->ijk", *lines)
    np.testing.assert_allclose(psf.array, expected / expected.sum(), atol=2e-4 * float(psf.array.max()))
    assert np.unravel_index(psf.array.argmax(), shape) == tuple(n // 2 for n in shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"na": 1.6}, "not below immersion_index"),
        ({"na": 0}, "na is 0"),
        ({"emission_nm": 0.52}, "emission_nm is 0.52"),
        ({"immersion_index": float("nan")}, "immersion_index is nan"),
    ],
)
def test_impossible_optics(change, message):
    with pytest.raises(InputError, match=message):
        gd.Optics(**{"na": 1.4, "emission_nm": 520, "immersion_index": 1.515, **change})


def test_bad_requests():
    optics = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515)
    with pytest.raises(InputError, match="'airy'"):
        gd.theoretical_psf(optics, (5, 5, 5), (0.1, 0.1, 0.1), model="airy")
    with pytest.raises(InputError, match="give 3 positive"):
        gd.theoretical_psf(optics, (5, 5, 5), (0.1, 0.1))
    with pytest.raises(InputError, match=r"\(5,\)"):
        gd.theoretical_psf(optics, (5,), (0.1,))
