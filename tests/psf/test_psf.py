"""PSF: validation, resampling against closed forms, cleaning of measured ones."""

import re
import warnings

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.psf.measured import fitted_centre, measured_psf


def band_limited(shape, voxel_um, sigma_um, centre_um=(0, 0, 0)):
    """Samples of an anisotropic Gaussian that is wide enough to be band-limited on all grids used here."""
    grid = np.meshgrid(*((np.arange(n) - n // 2) * v for n, v in zip(shape, voxel_um, strict=True)), indexing="ij")
    return np.exp(-sum(((g - c) / s) ** 2 for g, c, s in zip(grid, centre_um, sigma_um, strict=True)) / 2)


@pytest.mark.parametrize("shape", [(31, 33, 35), (32, 34, 36), (31, 34, 33)])
@pytest.mark.parametrize("new_voxel", [(0.13, 0.08, 0.07), (0.31, 0.14, 0.1), (0.2, 0.1, 0.1)])
def test_resample_evaluates_the_same_function(shape, new_voxel):
    sigma, centre = (0.55, 0.27, 0.25), (0.05, -0.03, 0.02)
    psf = gd.PSF(band_limited(shape, (0.2, 0.1, 0.1), sigma, centre), (0.2, 0.1, 0.1), {"file": "bead.tif"})
    new = psf.resample(new_voxel)
    assert new.origin == {"file": "bead.tif"}
    expected = band_limited(new.shape, new_voxel, sigma, centre)
    assert new.voxel_um == new_voxel
    assert new.array.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(new.array, expected / expected.sum(), atol=2e-3 * float(new.array.max()))


def test_resample_needs_a_voxel_size():
    with pytest.raises(InputError, match="no voxel size"):
        gd.PSF(np.ones((3, 3, 3))).resample((0.1, 0.1, 0.1))


@pytest.mark.parametrize(("planes", "step_um"), [(2, 0.1), (2, 0.3), (3, 0.3), (9, 1.0)])
def test_resample_does_not_leave_one_plane_of_several(planes, step_um):
    psf = gd.PSF(np.ones((planes, 5, 5)), (0.2, 0.1, 0.1))
    with pytest.raises(InputError, match=f"{planes} samples of 0.2 um along z, of which voxels of {step_um:g} um"):
        psf.resample((step_um, 0.1, 0.1))
    with pytest.raises(InputError, match="The PSF has 2 samples"):
        gd.PSF(np.ones((5, 2)), (0.2, 0.2)).resample((0.2, 0.1))
    assert gd.PSF(np.ones((1, 5, 5)), (0.2, 0.1, 0.1)).resample((0.3, 0.1, 0.1)).shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 2, 2, 2)), r"\(2, 2, 2, 2\)"),
        (np.ones(4), r"\(4,\)"),
        (np.array([[1.0, np.nan]]), "1 NaN"),
        (np.array([[1.0, -0.1]]), "negative"),
        (np.zeros((3, 3)), "zero everywhere"),
        (np.ones((3, 3), complex), "complex"),
    ],
)
def test_psf_refuses(array, message):
    with pytest.raises(InputError, match=message):
        gd.PSF(array)


def test_origin_is_what_json_can_hold():
    array, origin = np.ones((3, 3)), {"optics": {"profile": ((0.0, 1.0),)}, "beads": 3}
    psf = gd.PSF(array, (0.1, 0.1), origin)
    assert psf.origin == {"optics": {"profile": [[0.0, 1.0]]}, "beads": 3}
    assert psf.sha256 == gd.PSF(array, (0.1, 0.1)).sha256
    assert psf.radially_averaged().origin == psf.origin | {"radial_average": True}
    with pytest.raises(InputError, match=r"origin is .*; give what JSON can hold"):
        gd.PSF(array, None, {"size": np.float32(1)})


def test_psf_identity_depends_on_values_and_pitch():
    a = gd.PSF(np.arange(1.0, 28).reshape(3, 3, 3), (0.2, 0.1, 0.1))
    same = gd.PSF(np.arange(1.0, 28).reshape(3, 3, 3) * 2, (0.2, 0.1, 0.1))
    assert a.sha256 == same.sha256
    assert a.sha256 != gd.PSF(a.array, (0.3, 0.1, 0.1)).sha256
    assert a.sha256 != gd.PSF(a.array[::-1], (0.2, 0.1, 0.1)).sha256


@pytest.mark.parametrize("shape", [(21, 32, 35), (20, 33, 34)])
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.4, -0.3, 0.25), (-3.3, 4.6, -5.5)])
def test_measured_psf_is_centred_by_a_sub_voxel_shift(shape, shift):
    sigma = (1.6, 1.4, 1.9)
    bead = 1000 * band_limited(shape, (1, 1, 1), sigma, shift)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpudeconWarning)
        psf = measured_psf(bead, None)
    centre = fitted_centre(psf.array.astype(float))
    np.testing.assert_allclose(centre, [n // 2 for n in shape], atol=0.02)
    expected = band_limited(shape, (1, 1, 1), sigma)
    assert np.abs(psf.array - expected / expected.sum()).max() < 0.02 * psf.array.max()


def test_measured_psf_says_what_it_did(rng):
    bead = 5000 * band_limited((25, 40, 41), (1, 1, 1), (2.5, 1.6, 1.4), (2.3, -0.6, 0.2)) + 300
    noisy = rng.poisson(bead).astype(np.uint16)
    with pytest.warns(GpudeconWarning) as told:
        psf = measured_psf(noisy, (0.2, 0.1, 0.1), "bead.tif")
    said = " ".join(str(w.message) for w in told)
    assert "background 300" in said or "background 299" in said or "background 301" in said
    assert "shifted by (-2.3" in said
    assert "divided by its sum" in said
    expected = band_limited((25, 40, 41), (1, 1, 1), (2.5, 1.6, 1.4))
    expected /= expected.sum()
    assert np.linalg.norm(psf.array - expected) < 0.06 * np.linalg.norm(expected)
    assert psf.array.min() >= 0


def test_a_clean_psf_is_left_alone():
    clean = band_limited((25, 33, 34), (1, 1, 1), (2.5, 1.6, 1.4))
    clean /= clean.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        psf = measured_psf(clean, None)
    np.testing.assert_allclose(psf.array, clean, atol=1e-6 * clean.max())


@pytest.mark.parametrize("modality", [{}, {"modality": "two-photon", "excitation_nm": 920}])
@pytest.mark.parametrize("noise", [0.0, 2e-4])
def test_no_change_of_the_light_is_silent(rng, modality, noise):
    """Where more than a thousandth of the light is another than before, it is said how much."""
    optics = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515, **modality)
    given = gd.theoretical_psf(optics, (41, 65, 65), (0.1, 0.065, 0.065)).array.astype(float)
    given += noise * given.max() * rng.normal(size=given.shape)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        psf = measured_psf(given, None)
    light = given / given.sum()
    changed = np.abs(psf.array - light).sum()
    said = " ".join(str(w.message) for w in told)
    assert changed < 2e-3 or "of its light" in said, changed


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((9, 9, 9), np.nan), "729 NaN"),
        (np.zeros((9, 9, 9)), "zero everywhere"),
        (-np.ones((9, 9, 9)), "no positive value"),
        (np.ones((9, 9, 9)) * 7, "does not stand out"),
        (np.ones((2, 9, 9, 9)), r"\(2, 9, 9, 9\)"),
    ],
)
def test_measured_psf_refuses(array, message):
    with pytest.raises(InputError, match=message):
        measured_psf(array, None)


def test_read_psf_of_the_real_bars_kernel(shared_data):
    """The kernel lies half a voxel before n // 2 on z and 0.4 on y and x: an even-sized, reduced PSF."""
    with pytest.warns(GpudeconWarning) as told:
        psf = gd.read_psf(shared_data / "bars-25pct_kernel.tif", voxel_um=(0.2, 0.1, 0.1))
    assert re.search(r"centre at \(15\.\d\d, 31\.\d\d, 31\.\d\d\)", " ".join(str(w.message) for w in told))
    assert psf.shape == (32, 64, 64)
    assert psf.voxel_um == (0.2, 0.1, 0.1)
    # the cone of light away from focus is signal: it must survive the removal of background
    assert psf.array[:6].sum() > 0.05


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("command", ["psf theory", "psf beads"])
def test_read_psf_takes_what_gpudecon_made_as_it_is(tmp_path, command, suffix):
    """Its peak beside the middle and its faint light stay; in a file of other origin they do not."""
    values = band_limited((9, 16, 17), (1, 1, 1), (1.5, 1.6, 1.4), (0.4, 0, 0)) + 1e-3
    psf = gd.PSF(values, (0.2, 0.1, 0.1))
    image = gd.Image(psf.array, "zyx", psf.voxel_um)
    gd.write(tmp_path / f"own{suffix}", image, provenance={"command": command})
    assert gd.read_psf(tmp_path / f"own{suffix}").sha256 == psf.sha256
    gd.write(tmp_path / f"other{suffix}", image, provenance={"settings": {}})
    with pytest.warns(GpudeconWarning, match="of its light|shifted"):
        assert gd.read_psf(tmp_path / f"other{suffix}").sha256 != psf.sha256


def test_the_faint_cone_of_a_noisy_widefield_bead_is_kept(rng):
    """Out of focus each voxel lies below the noise, but the planes hold much of the light."""
    optics = gd.Optics(na=1.3, emission_nm=520, immersion_index=1.515)
    truth = gd.theoretical_psf(optics, (41, 65, 65), (0.2, 0.08, 0.08)).array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpudeconWarning)
        psf = measured_psf(rng.poisson(truth / truth.max() * 1000 + 100), (0.2, 0.08, 0.08)).array
    light, expected = (a.sum(axis=(1, 2)) / a[20].sum() for a in (psf, truth))
    np.testing.assert_allclose(light[::5], expected[::5], atol=0.2)


def test_psf_beyond_the_range_of_float32():
    values = np.arange(1.0, 28).reshape(3, 3, 3)
    for scale in (1e-41, 1e41):
        np.testing.assert_allclose(gd.PSF(values * scale).array, gd.PSF(values).array, rtol=1e-6)
