"""distill_psf against simulated beads whose places and PSF are known."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.psf.measured import fitted_centre
from gpudecon.psf.quality_control import axial_skew

from .simulated import VOXEL_UM, bead_field, recorded, render

BACKGROUND = {5000: 100, 500: 100, 100: 20}
SPHERICAL = 8.0  # rad at the rim
LARGEST_ERROR = {5000: 0.03, 500: 0.04, 100: 0.06}


def error(psf, spherical=0.0, voxel_um=VOXEL_UM):
    """Relative root mean square error, both with sum 1."""
    truth = centred(psf.shape, spherical, voxel_um).astype(float)
    truth /= truth.sum()
    return np.linalg.norm(psf.array - truth) / np.linalg.norm(truth)


def centred(shape, spherical, voxel_um=VOXEL_UM):
    """The truth with the centre of its fitted Gaussian at n // 2, as a distilled PSF has it."""
    middle = np.array(shape) // 2
    return render(shape, 2 * middle - fitted_centre(render(shape, middle, spherical, voxel_um)), spherical, voxel_um)


def nearest(beads, places):
    """The bead nearest to each of some places in voxels, and its distance in um (z, y, x)."""
    positions = np.array([b.position_um for b in beads])
    chosen = [int(np.linalg.norm(positions - p * VOXEL_UM, axis=1).argmin()) for p in places]
    return [beads[i] for i in chosen], positions[chosen] - places * np.array(VOXEL_UM)


@pytest.fixture(scope="module", params=[5000, 500, 100])
def distilled(request, field, optics):
    peak = request.param
    image = recorded(field, peak, BACKGROUND[peak], seed=1)
    return peak, gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics, radial_average=True)


@pytest.mark.slow
def test_psf_is_the_truth(distilled):
    peak, psf = distilled
    assert isinstance(psf, gd.PSF)
    assert psf.voxel_um == VOXEL_UM
    assert psf.array.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert error(psf) < LARGEST_ERROR[peak]
    assert gd.check_psf(psf, optics=gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515)) == []


@pytest.mark.slow
def test_every_bead_has_its_verdict(distilled, field):
    _, psf = distilled
    singles, distance = nearest(psf.beads, field.single)
    assert np.abs(distance).max() < 0.03
    assert [b.rejected for b in singles] == [None] * 24
    assert psf.qc.beads_used == 24
    clumps, distance = nearest(psf.beads, field.clumps)
    assert np.abs(distance).max() < 0.15
    assert all(b.rejected and b.rejected.startswith("clump") for b in clumps)
    (bright,), _ = nearest(psf.beads, field.saturated)
    assert bright.rejected.startswith("saturated")


@pytest.mark.slow
def test_quality_figures(distilled, optics):
    peak, psf = distilled
    theory = gd.theoretical_psf(optics, psf.shape, VOXEL_UM)
    assert psf.qc.theory_ratio == pytest.approx((1, 1, 1), abs=0.03)
    assert psf.qc.theory_correlation == pytest.approx(np.corrcoef(psf.array.ravel(), theory.array.ravel())[0, 1])
    assert psf.qc.fwhm_um == pytest.approx((0.507, 0.214, 0.214), abs=0.015)
    assert psf.qc.asymmetry == pytest.approx(1, abs=1e-3)
    assert abs(psf.qc.axial_skew) < 0.01
    assert psf.qc.signal_to_background == pytest.approx(0.9 * 0.95 * peak / BACKGROUND[peak], rel=0.05)


@pytest.fixture(scope="module")
def small():
    """Eleven aberrated beads among the others, bright, and the noise-free field."""
    return bead_field(seed=9, spherical=SPHERICAL, cells=4, beads=11)


def test_an_aberrated_psf_stays_aberrated(small, optics):
    psf = gd.distill_psf(recorded(small, 5000, 100, seed=2), voxel_um=VOXEL_UM, optics=optics, radial_average=True)
    assert psf.qc.beads_used >= 9  # the others are too near the ends of z
    assert error(psf, SPHERICAL) < 0.03
    truth = centred(psf.shape, SPHERICAL)
    assert psf.qc.axial_skew == pytest.approx(axial_skew(truth, VOXEL_UM, 0.1073), abs=0.03)
    assert abs(psf.qc.axial_skew) > 0.05
    assert psf.qc.theory_correlation < 0.985


def test_without_optics(field):
    image = recorded(field, 5000, 100, seed=1)[:, :250, :250]
    with pytest.warns(GpudeconWarning, match="Without optics"):
        psf = gd.distill_psf(image, voxel_um=VOXEL_UM, radial_average=True)
    assert psf.qc.theory_ratio is None
    assert error(psf) < 0.1  # the far light cannot be told from background, nor all noise from light


def test_the_mask_removes_most_of_the_noise(field, optics):
    image = recorded(field, 500, 100, seed=1)[:, :250, :250]
    with pytest.warns(GpudeconWarning, match="Without optics"):
        raw = gd.distill_psf(image, voxel_um=VOXEL_UM)
    assert error(gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics)) < 0.5 * error(raw)


@pytest.mark.slow
def test_a_short_stack_is_extended_by_a_fitted_pupil(small, optics):
    focus = round(fitted_centre(render((35, 35, 35), (17, 17, 17), SPHERICAL))[0])
    image = recorded(small, 5000, 100, seed=2)[focus - 9 : focus + 10, :260, :260]
    with pytest.warns(GpudeconWarning, match="computed from a pupil fitted"):
        psf = gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics, extent_um=(3.3, 2.9, 2.9), energy=1.0)
    assert psf.shape == (33, 45, 45)
    truth = centred(psf.shape, SPHERICAL).astype(float)
    truth /= truth.sum()
    added = np.r_[0:7, 26:33]  # planes nobody recorded
    assert np.linalg.norm((psf.array - truth)[added]) < 0.1 * np.linalg.norm(truth[added])


def test_larger_pixels(small, optics):
    """Beads taken at 65 nm for images at 90 nm: the light over the larger pixel, not a sample of the smaller one's."""
    image = recorded(small, 5000, 100, seed=2)
    coarse = (0.2, 0.09, 0.09)
    psf = gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics, image_voxel_um=coarse, radial_average=True)
    assert psf.voxel_um == coarse
    assert error(psf, SPHERICAL, coarse) < 0.05


def test_a_distilled_psf_is_used_like_any(small, optics):
    psf = gd.distill_psf(recorded(small, 5000, 100, seed=2), voxel_um=VOXEL_UM, optics=optics)
    image = recorded(small, 500, 100, seed=3)[:20, :60, :60]
    restored = gd.deconvolve(image, psf, iterations=3, background=100, voxel_um=VOXEL_UM, device="cpu")
    assert np.isfinite(restored).all()
    assert psf.resample((0.2, 0.1, 0.1)).voxel_um == (0.2, 0.1, 0.1)
    assert psf.radially_averaged().shape == psf.shape


def reasons(image, optics, **options):
    """The verdicts on all beads, and the PSF."""
    psf = gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics, **options)
    return psf, [b.rejected for b in psf.beads if b.rejected is not None]


def few_beads(places, shape=(31, 200, 200), peak=2000, seed=4):
    image = sum(render(shape, p) for p in places)
    return np.random.default_rng(seed).poisson(peak * image + 100).astype(np.uint16)


FOUR = [(15, 50, 50), (15.3, 50.4, 150.2), (14.7, 150.1, 50.3), (15.2, 149.6, 149.8)]


def test_neighbours_and_the_border(optics):
    image = few_beads([*FOUR, (15, 100, 100), (15, 100.5, 114), (15, 8, 100)])
    psf, why = reasons(image, optics)
    assert psf.qc.beads_used == 4
    assert sorted(w.split(":")[0] for w in why) == ["border", "neighbour at 0.91 um", "neighbour at 0.91 um"]


def test_hot_pixels_are_no_beads(optics):
    image = few_beads(FOUR)
    image[15, 100, 100] = 6000
    psf, why = reasons(image, optics)
    assert psf.qc.beads_used == 4
    assert len(why) <= 1  # a voxel too sharp for the band pass, or found out


def test_a_given_saturation(optics):
    image = np.minimum(few_beads([*FOUR[:3], (15, 150, 150)]), 1500)
    with pytest.raises(InputError, match="None of the 4 beads found can be used \\(4 saturated\\)"):
        gd.distill_psf(image, voxel_um=VOXEL_UM, optics=optics, saturation=1500)


def test_an_odd_bead_is_told_by_the_mean(optics):
    """As bright and wide as the others, but turned around in z: only its shape differs."""
    shape = (31, 200, 260)
    places = [*FOUR, (15, 100, 205), (15.2, 40, 210.4)]
    image = sum(render(shape, p, SPHERICAL) for p in places) + render(shape, (15, 160, 205), -SPHERICAL)
    image = np.random.default_rng(4).poisson(3000 * image + 100)
    psf, why = reasons(image, optics)
    assert psf.qc.beads_used == 6
    assert why[0].startswith("unlike the others: differs by")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.ones((5, 9))}, r"shape \(5, 9\)"),
        ({"image": np.full((5, 9, 9), np.nan)}, "405 NaN"),
        ({"image": np.ones((15, 40, 40))}, "No bead stands out"),
        ({"energy": 0.2}, "energy is 0.2"),
        ({"bead_diameter_um": -1}, "bead_diameter_um is -1"),
        ({"bead_diameter_um": 0.3}, "too large for a PSF: above 0.266 um"),
        ({"voxel_um": (0.1, 0.1)}, "give 3 positive"),
        ({"extent_um": (1, 1)}, "extent_um"),
        ({"voxel_um": (0.8, 0.4, 0.4)}, "no point sources, or the optics or the voxel size are wrong"),
    ],
)
def test_refused(optics, change, message):
    given = {"image": few_beads(FOUR), "voxel_um": VOXEL_UM, "optics": optics} | change
    with pytest.raises(InputError, match=message):
        gd.distill_psf(**given)


def test_wide_beads_are_warned_about(optics):
    with pytest.warns(GpudeconWarning, match=r"1\.[45] times what these optics and voxels give for point sources"):
        gd.distill_psf(few_beads(FOUR), voxel_um=(0.1, 0.1, 0.1), optics=optics)


def test_two_photon_beads(optics):
    """Another modality: wider than its emission says, without a cone of light."""
    two_photon = gd.Optics(na=1.1, emission_nm=520, immersion_index=1.33, modality="two-photon", excitation_nm=920)
    voxel = (0.2, 0.1, 0.1)
    truth = gd.theoretical_psf(two_photon, (31, 61, 61), voxel).array.astype(float)
    image = np.zeros((31, 150, 150))
    for y, x in ((40, 40), (41, 109), (108, 42), (110, 108)):
        image[:, y - 30 : y + 31, x - 30 : x + 31] += truth / truth.max()
    image = np.random.default_rng(8).poisson(3000 * image + 50)
    psf = gd.distill_psf(image, voxel_um=voxel, optics=two_photon)
    assert psf.qc.beads_used == 4
    expected = gd.theoretical_psf(two_photon, psf.shape, voxel).array
    assert np.linalg.norm(psf.array - expected) < 0.04 * np.linalg.norm(expected)
