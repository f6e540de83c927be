"""check_psf: each fault is found in a PSF that has it, and nothing in good ones."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import InputError
from gpudecon.psf.align import fourier_shift

VOXEL_UM = (0.1, 0.065, 0.065)
OIL = {"na": 1.4, "emission_nm": 520, "immersion_index": 1.515}
OPTICS = gd.Optics(**OIL)
DEEP = gd.Optics(na=1.3, emission_nm=520, immersion_index=1.515, sample_index=1.38, depth_um=8)
CONFOCAL = gd.Optics(**OIL, modality="confocal", excitation_nm=488, pinhole_au=1.0)
WATER = {"na": 1.1, "emission_nm": 520, "immersion_index": 1.33}
GOOD = {
    "widefield": (OPTICS, (41, 65, 65), VOXEL_UM),
    "widefield, even": (OPTICS, (64, 128, 96), VOXEL_UM),
    "in focus": (OPTICS, (65, 65), (0.065, 0.065)),
    "low aperture": (gd.Optics(na=0.8, emission_nm=600, immersion_index=1.0), (41, 65, 65), (0.4, 0.16, 0.16)),
    "aberrated": (DEEP, (65, 65, 65), (0.1, 0.07, 0.07)),
    "confocal": (CONFOCAL, (41, 65, 65), (0.1, 0.045, 0.045)),
    "two-photon": (
        gd.Optics(**WATER, modality="two-photon", excitation_nm=920),
        (61, 65, 65),
        (0.2, 0.1, 0.1),
    ),
    "light-sheet": (
        gd.Optics(**WATER, modality="light-sheet", excitation_nm=488, sheet_na=0.1),
        (61, 65, 65),
        (0.2, 0.1, 0.1),
    ),
    "light-sheet, measured": (
        gd.Optics(**WATER, modality="light-sheet", sheet_profile=((-2, 0), (0, 1), (2, 0))),
        (61, 65, 65),
        (0.2, 0.1, 0.1),
    ),
    "one plane": (OPTICS, (1, 65, 65), VOXEL_UM),
    "sted": (
        gd.Optics(**OIL, modality="sted", excitation_nm=488, sted_nm=592, sted_saturation=10),
        (31, 65, 65),
        (0.1, 0.02, 0.02),
    ),
}


@pytest.fixture(scope="module")
def good():
    return gd.theoretical_psf(OPTICS, (41, 65, 65), VOXEL_UM)


def names(*args, severity=None, **kwargs):
    return {f.name for f in gd.check_psf(*args, **kwargs) if severity in (None, f.severity)}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_wrong_with_good_ones(name):
    optics, shape, voxel = GOOD[name]
    psf = gd.theoretical_psf(optics, shape, voxel)
    assert gd.check_psf(psf, optics=optics, image_voxel_um=voxel) == []
    assert gd.check_psf(psf, image_voxel_um=voxel) == []
    assert gd.check_psf(psf.array) == []


def faulty(array, fault):
    """The array with a fault, and which findings that must give among what optics and voxels say."""
    a = array.astype(float).copy()
    if fault == "not finite":
        a[3, 4, 5] = np.nan
    elif fault == "empty":
        a = -a
    elif fault == "no point":
        a[...] = 7
    elif fault == "sum":
        a *= 1000
    elif fault == "negative":
        a -= 0.01 * a.max()
    elif fault == "background":
        a += 0.02 * a.max()
    elif fault == "saturated":
        a = np.minimum(a, 0.6 * a.max())
    elif fault == "off centre":
        a = fourier_shift(a, np.array([0.0, 0.4, -0.5]))
    elif fault == "truncated":
        a = a[16:25]
    elif fault == "passband":
        a += np.random.default_rng(1).normal(scale=0.01 * a.max(), size=a.shape)
    return a


FATAL = {"not finite", "empty", "no point"}


@pytest.mark.parametrize(
    "fault",
    [*sorted(FATAL), "sum", "negative", "background", "saturated", "off centre", "truncated", "passband"],
)
def test_each_fault_is_found(good, fault):
    array = faulty(good.array, fault)
    found = {f.name: f.severity for f in gd.check_psf(array, voxel_um=VOXEL_UM, optics=OPTICS)}
    assert fault in found
    if fault in FATAL:
        assert found == {fault: "fatal"}
    else:
        assert "fatal" not in found.values()
        assert found[fault] == ("note" if fault == "sum" else "warning")
    if fault != "passband":  # these can be told without the optics
        assert fault in names(array)


def test_pitch(good):
    (finding,) = gd.check_psf(good, image_voxel_um=(0.2, 0.1, 0.1))
    assert (finding.name, finding.severity) == ("pitch", "note")
    assert "(0.1, 0.065, 0.065) um, the image's (0.2, 0.1, 0.1) um" in finding.figure
    (finding,) = gd.check_psf(good.array, voxel_um=VOXEL_UM, image_voxel_um=(0.2, 0.1, 0.1))
    assert (finding.name, finding.severity) == ("pitch", "warning")
    (finding,) = gd.check_psf(good.array, image_voxel_um=VOXEL_UM)
    assert finding.figure == "The PSF's voxel size is not known"


def test_nyquist():
    coarse = (0.3, 0.13, 0.13)
    psf = gd.theoretical_psf(OPTICS, (21, 33, 33), coarse)
    found = [f for f in gd.check_psf(psf, optics=OPTICS, image_voxel_um=coarse) if f.name == "below Nyquist"]
    assert len(found) == 3  # not said once more for the image, which has the same voxels
    # 520 nm / (4 NA), and 1 / (2 (n - sqrt(n^2 - NA^2)) / wavelength)
    assert "0.3 um along z is above the 0.278 um" in found[0].figure
    assert "0.13 um along y is above the 0.0929 um" in found[1].figure
    assert found[1].advice == "sample with at most 0.093 um"
    assert any(
        "The image's step of 0.2 um along x" in f.figure
        for f in gd.check_psf(
            gd.theoretical_psf(OPTICS, (41, 65, 65), VOXEL_UM), optics=OPTICS, image_voxel_um=(0.1, 0.2, 0.2)
        )
    )
    narrow = np.zeros((9, 9, 9))
    narrow[4, 4, 4] = 1
    assert "below Nyquist" in names(narrow, voxel_um=(1, 1, 1))


def test_reversed_z():
    psf = gd.theoretical_psf(DEEP, (65, 65, 65), (0.1, 0.07, 0.07))
    turned = gd.PSF(psf.array[::-1], psf.voxel_um)
    (finding,) = gd.check_psf(turned, optics=DEEP)
    assert (finding.name, finding.severity) == ("z reversed", "warning")
    assert finding.advice.startswith("reverse the order of its planes")


@pytest.mark.parametrize(
    ("voxel_um", "severity"), [((0.1, 0.1, 0.1), "warning"), ((0.4, 0.26, 0.26), "fatal"), ((0.1, 0.02, 0.02), "fatal")]
)
def test_width_does_not_fit_the_optics(good, voxel_um, severity):
    psf = gd.PSF(good.array, voxel_um)
    assert "width" in names(psf, optics=OPTICS, severity=severity)


def test_an_aberration_that_the_optics_do_not_have():
    psf = gd.pupil_psf(OPTICS, (41, 65, 65), VOXEL_UM, {"astigmatism vertical": 1.5})
    assert "unlike optics" in names(psf, optics=OPTICS)


def test_shape_and_dimensions(good):
    assert names(np.ones(5), severity="fatal") == {"shape"}
    assert names(np.ones((3, 3), complex), severity="fatal") == {"shape"}
    assert names(good, image_voxel_um=(0.1, 0.1), severity="fatal") == {"dimensions"}


@pytest.mark.parametrize("voxel_um", [0.065, (0.1,), (0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.0), "fine"])
def test_impossible_voxels_of_the_image_are_refused(good, voxel_um):
    with pytest.raises(InputError, match=r"image_voxel_um is .*; give 3 positive sizes in micrometres"):
        gd.check_psf(good, image_voxel_um=voxel_um)


def test_the_worst_comes_first_and_says_what_to_do(good):
    array = np.maximum(good.array + 0.02 * good.array.max(), 0) * 5
    found = gd.check_psf(array, voxel_um=(0.4, 0.26, 0.26), optics=OPTICS)
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["fatal", "warning", "note"].index)
    assert all(str(f) == f"{f.figure}; {f.advice}." for f in found)


def test_camera_frames_do_not_raise_false_alarms():
    """A bead of 2000 photons on an offset, as a file holds it: what reading repairs, and no plateau."""
    psf = gd.theoretical_psf(OPTICS, (41, 65, 65), VOXEL_UM).array
    image = np.random.default_rng(3).poisson(2000 * psf / psf.max() + 100).astype(np.uint16)
    assert names(image) == {"sum", "background"}
