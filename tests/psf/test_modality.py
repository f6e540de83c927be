"""Modalities: limits, widths, pinholes, and the spinning disk and the light sheet against simulated scans."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from gpudecon.backend import get_backend
from gpudecon.errors import InputError
from gpudecon.optics import Optics
from gpudecon.psf.hankel import behind_pinhole
from gpudecon.psf.modality import INSTRUMENTS, sheet_intensity
from gpudecon.psf.theory import beam_of, theoretical_psf

BACKEND = get_backend("cpu")
OIL = {"na": 1.4, "emission_nm": 520, "immersion_index": 1.515}
CONFOCAL = {**OIL, "modality": "confocal", "excitation_nm": 488, "pinhole_au": 1.0}
TWO_PHOTON = {**OIL, "modality": "two-photon", "excitation_nm": 920}
STED = {**OIL, "emission_nm": 660, "modality": "sted", "excitation_nm": 640, "sted_nm": 775, "sted_saturation": 20}
SHEET = {**OIL, "na": 1.0, "immersion_index": 1.33, "coverslip_um": 0.0, "modality": "light-sheet"}
R, Z = np.linspace(0, 2, 201), np.linspace(-1.5, 1.5, 13)
REACH = 1.5, (0.0,)


def instrument(**optics):
    optics = Optics(**optics)
    return INSTRUMENTS[optics.modality](BACKEND, optics, beam_of(BACKEND, optics, "vectorial", None))


def table(r=R, z=Z, **optics):
    return instrument(**optics).profile(r, *REACH)(z, 0.0)


def beam(wavelength_nm, pattern=None):
    return beam_of(BACKEND, Optics(**OIL), "vectorial", None)(wavelength_nm, pattern)


def light(wavelength_nm, r=R, z=Z, pattern=None):
    return beam(wavelength_nm, pattern).profile(r, *REACH)(z, 0.0)


def widths(**optics):
    """FWHM (lateral, axial) in um."""
    profile = instrument(**optics).profile
    along = np.linspace(0, 1, 1001)
    lateral = profile(along, *REACH)(np.zeros(1), 0.0)[0]
    axial = profile(np.zeros(1), *REACH)(along, 0.0)[:, 0]
    return [
        2 * brentq(CubicSpline(along, y / y[0] - 0.5), along[i := np.argmax(y < y[0] / 2) - 1], along[i + 1])
        for y in (lateral, axial)
    ]


@pytest.mark.parametrize(
    ("optics", "lateral", "axial"),
    [
        (OIL, 0.2096, 0.5072),
        *[
            ({**CONFOCAL, "pinhole_au": au}, lateral, axial)
            for au, lateral, axial in (
                (0.01, 0.1449, 0.3526),
                (0.25, 0.1476, 0.3536),
                (0.5, 0.1561, 0.3578),
                (1, 0.1871, 0.3886),
                (2, 0.1963, 0.4479),
                (4, 0.1965, 0.4701),
            )
        ],
        (TWO_PHOTON, 0.2649, 0.6447),
    ],
)
def test_frozen_widths(optics, lateral, axial):
    assert_allclose(widths(**optics), (lateral, axial), rtol=0, atol=6e-5)


def test_two_photon_widths_near_the_fits_of_zipfel():
    lateral, axial = widths(**TWO_PHOTON)  # Nat. Biotechnol. 21 (2003)
    assert_allclose(lateral, 0.2592, rtol=0.03)
    assert_allclose(axial, 0.6157, rtol=0.06)


def test_a_closed_pinhole_multiplies_and_an_open_one_does_nothing():
    closed = table(**{**CONFOCAL, "pinhole_au": 1e-4})
    assert_allclose(closed, light(488) * light(520), rtol=0, atol=1e-6 * closed.max())
    opened = table(**{**CONFOCAL, "pinhole_au": 100})
    assert_allclose(opened / opened.max(), light(488) / light(488).max(), rtol=0, atol=3e-4)


def test_two_photon_is_the_square():
    np.testing.assert_array_equal(table(**TWO_PHOTON), light(920) ** 2)
    descanned = table(**TWO_PHOTON, pinhole_au=1e-4)
    assert_allclose(descanned, light(920) ** 2 * light(520), rtol=0, atol=1e-6 * descanned.max())


@pytest.mark.parametrize("radius", [0.05, 0.2265, 1.0])
def test_pinhole_against_a_mean_over_its_disc(radius):
    z, r = np.array([0.0, 0.5, 1.5]), np.linspace(0, 2, 9)
    found = behind_pinhole(BACKEND, beam(520), radius, r, *REACH)(z, 0.0)
    x, w = np.polynomial.legendre.leggauss(40)
    rho, w = radius * (x + 1) / 2, w * (x + 1) / 2
    phi = np.arange(64) * np.pi / 32
    distance = np.hypot(r[:, None, None] + rho[:, None] * np.cos(phi), rho[:, None] * np.sin(phi))
    values = light(520, distance.ravel(), z).reshape(3, *distance.shape)
    assert_allclose(found, values.mean(axis=-1) @ w, rtol=0, atol=2e-6)


def test_hankel_round_trip():
    smooth = behind_pinhole(BACKEND, beam(520), 1e-9, R, *REACH)(np.zeros(1), 0.0)
    bare = light(520, z=np.zeros(1))
    assert_allclose(smooth, bare, rtol=0, atol=2e-7 * bare.max())


def test_sted():
    relative = light(775, pattern="vortex")
    relative = relative / light(775, np.linspace(0, 0.6, 3001), np.zeros(1), "vortex").max()
    expected = light(640) * np.exp(-20 * relative)
    assert_allclose(table(**STED), expected, rtol=0, atol=1e-5 * expected.max())
    np.testing.assert_allclose(table(**{**STED, "sted_saturation": 0}), light(640), rtol=1e-14)
    without = widths(**{**STED, "sted_saturation": 0})
    narrow = [widths(**{**STED, "sted_saturation": s})[0] for s in (5, 20, 80)]
    # d = d_0 / sqrt(1 + c S) (Westphal & Hell, Phys. Rev. Lett. 94, 2005)
    c = [((without[0] / d) ** 2 - 1) / s for d, s in zip(narrow, (5, 20, 80), strict=True)]
    assert_allclose(c, np.mean(c), rtol=0.1)
    flat, deep = widths(**STED), widths(**STED, sted_pattern="bottle")
    assert flat[0] < without[0] / 3
    assert flat[1] > 0.95 * without[1]
    assert deep[1] < without[1] / 3


def test_sted_with_residual_and_immune_dye():
    full, spoiled = table(**STED), table(**STED, sted_residual=0.02, sted_immune=0.1)
    excitation = light(640)
    centre = np.s_[6, 0]
    assert_allclose(spoiled[centre] / excitation[centre], 0.1 + 0.9 * np.exp(-20 * 0.02), rtol=1e-9)
    assert_allclose(full[centre], excitation[centre], rtol=1e-9)


def test_spinning_disk_against_a_simulated_scan():
    # Square cell of the disk's pattern in n^2 positions: illuminate through the pinholes, see through the pinholes.
    n, spacing, far = 48, 1.2, 25.0
    optics = {**OIL, "na": 1.2, "immersion_index": 1.33, "coverslip_um": 0.0, "emission_nm": 560}
    disk = Optics(**optics, modality="spinning-disk", excitation_nm=488, pinhole_au=0.9, pinhole_spacing_um=spacing)
    beams = beam_of(BACKEND, disk, "vectorial", None)
    excitation = beams(488, None)
    pixel = spacing / n
    position = np.arange(n) * pixel
    radius = 0.45 * 1.22 * 0.56 / 1.2
    edge = (np.arange(8 * n) - 4 * n + 0.5) * pixel / 8
    pinhole = (np.add.outer(edge**2, edge**2) < radius**2).reshape(n, 8, n, 8).mean(axis=(1, 3))
    pinhole = np.roll(pinhole, (n // 2, n // 2), (0, 1))
    radii = np.linspace(0, 1.5 * far, 6001)
    for z in (0.0, 0.8):
        profile = CubicSpline(radii, excitation.profile(radii, 0.8, (0.0,))(np.array([z]), 0.0)[0])
        cells = np.arange(-int(far / spacing), int(far / spacing) + 1) * spacing
        periodic = np.zeros((n, n))
        for cell in cells:
            periodic += profile(np.hypot((position + cell)[:, None, None], position[:, None] + cells)).sum(axis=-1)
        # what is farther away, some 0.2 % of the light, is spread evenly over the cell
        periodic += (excitation.energy(0.0) / pixel**2 - periodic.sum()) / n**2
        image = np.zeros((n, n))
        for shift in np.ndindex(n, n):
            pattern = np.roll(pinhole, shift, (0, 1))
            excited = (pattern * periodic).sum() * pixel**2  # the source is at index 0
            image += pattern * excited / n**2
        lattice = instrument(**vars(disk)).factor(0.8, (0.0,))(np.array([z]), 0.0, position, position)[0]
        expected = lattice * image.mean() / lattice.mean()
        assert_allclose(image, expected, rtol=0, atol=2e-3 * image.max())  # pixels of 25 nm have that error
    assert image.min() > 0.9 * image.max()  # cross-talk: out of focus the excitation is nearly even


def test_spinning_disk_illuminates_with_the_light_that_reaches_each_depth():
    """The mean over a cell of the lattice is what the beam has in a whole plane, at depths that evanescent waves reach
    and at those that they do not; a period in 160 positions has no aliases of its 20 orders.
    """
    optics = {**OIL, "na": 1.49, "sample_index": 1.33}
    disk = {**optics, "modality": "spinning-disk", "excitation_nm": 488, "pinhole_au": 1.0, "pinhole_spacing_um": 2.0}
    excitation = beam_of(BACKEND, Optics(**optics), "vectorial", None)(488, None)
    depths, position = (0.0, 5.0), np.arange(160) * 2.0 / 160
    illumination = instrument(**disk).factor(0.0, depths)
    for depth in depths:
        mean = illumination(np.zeros(1), depth, position, position).mean()
        assert_allclose(mean, excitation.energy(depth), rtol=1e-10)
    assert excitation.energy(5.0) < 0.7 * excitation.energy(0.0)  # else any depth would do above


def test_spinning_disk_without_crosstalk_is_confocal_like():
    # Far apart pinholes: near the source only its own pinhole counts, twice on the side of the excitation.
    z = np.zeros(1)
    near = np.linspace(0, 0.5, 11)
    radius = 0.5 * 1.22 * 0.52 / 1.4
    disk = {**CONFOCAL, "modality": "spinning-disk", "pinhole_spacing_um": 8.0}
    found = instrument(**disk).factor(*REACH)(z, 0.0, np.zeros(1), near)[0, 0]
    phi, (x, w) = np.arange(48) * np.pi / 24, np.polynomial.legendre.leggauss(32)
    rho, w = radius * (x + 1) / 2, w * (x + 1) / 2
    distance = np.hypot(near[:, None, None] + rho[:, None] * np.cos(phi), rho[:, None] * np.sin(phi))
    once = behind_pinhole(BACKEND, beam(488), radius, distance.ravel(), *REACH)(z, 0.0).reshape(distance.shape)
    twice = once.mean(axis=-1) @ w
    assert_allclose(found / found[0], twice / twice[0], rtol=0, atol=3e-3)


def test_sheet_profiles():
    z = np.linspace(-8, 8, 33)
    waist = sheet_intensity(Optics(**SHEET, sheet_waist_um=2.0), z)
    assert_allclose(waist, np.exp(-2 * (z / 2) ** 2))
    by_na = sheet_intensity(Optics(**SHEET, sheet_na=0.06, excitation_nm=488), z)
    assert_allclose(by_na, np.exp(-2 * (z / (0.488 / (np.pi * 0.06))) ** 2))
    rayleigh = np.pi * 1.33 * 2.0**2 / 0.488
    far = Optics(**SHEET, sheet_waist_um=2.0, excitation_nm=488, sheet_distance_um=rayleigh)
    assert_allclose(sheet_intensity(far, z), np.exp(-((z / 2) ** 2)))
    measured = Optics(**SHEET, sheet_profile=((-1, 0), (1, 4), (2, 1)), sheet_offset_um=0.5)
    assert_allclose(sheet_intensity(measured, np.array([-0.6, -0.5, 0.5, 2.0, 2.6])), [0, 0, 2, 2.5, 0])


@pytest.mark.parametrize("sheet", [{"sheet_waist_um": 1.5}, {"sheet_profile": ((-2, 0.1), (0.5, 1), (3, 0))}])
def test_light_sheet_against_a_simulated_scan(sheet):
    # The stage takes the focal plane, and the sheet with it, through a source that rests at height 3 um.
    optics = Optics(**SHEET, **sheet, sheet_offset_um=0.7)
    stage, source = np.arange(-8, 9) * 0.4 + 3.0, 3.0
    detection = instrument(**{**SHEET, "modality": "widefield"}).profile(R, 4.0, (0.0,))(stage - source, 0.0)
    height_of_source_over_focal_plane = source - stage
    scan = detection * sheet_intensity(optics, height_of_source_over_focal_plane)[:, None]
    found = instrument(**vars(optics)).profile(R, 4.0, (0.0,))(stage - 3.0, 0.0)
    assert_allclose(found, scan, rtol=1e-12, atol=1e-15)
    # a sheet beyond the focal plane lights the source before the focus reaches it
    lit = sheet_intensity(optics, height_of_source_over_focal_plane)
    assert stage[lit.argmax()] < source


@pytest.mark.parametrize(
    ("sheet", "origin"),
    [
        ({"sheet_profile": ((0.2, 0), (0.5, 1), (0.8, 0))}, "paraxial"),  # between two planes
        ({"sheet_profile": ((-1, 0), (0, 1), (1, 0)), "sheet_offset_um": 300.0}, "paraxial"),
        ({"sheet_profile": ((-1, 0), (0, 1), (1, 0)), "sheet_offset_um": 300.0}, "peak"),
        ({"sheet_waist_um": 1.0, "sheet_offset_um": -300.0}, "peak"),
    ],
)
def test_a_sheet_that_misses_the_planes_is_refused(sheet, origin):
    with pytest.raises(InputError, match=r"light sheet misses the planes.* sheet_offset_um or sheet_profile"):
        theoretical_psf(Optics(**SHEET, **sheet), (3, 9, 9), (1.0, 0.1, 0.1), axial_origin=origin)


@pytest.mark.parametrize("optics", [CONFOCAL, TWO_PHOTON, STED, {**SHEET, "sheet_waist_um": 2.0}])
def test_volumes_are_the_expanded_tables(optics):
    z, x = np.arange(-2, 3) * 0.3, np.arange(-6, 7) * 0.05
    volume = theoretical_psf(Optics(**optics), (5, 1, 13), (0.3, 0.05, 0.05), pixel_integration=False).array[:, 0]
    expected = table(np.abs(x), z, **optics)
    assert_allclose(volume / volume.max(), expected / expected.max(), rtol=0, atol=3e-6)


def test_volume_of_a_spinning_disk():
    optics = {**CONFOCAL, "modality": "spinning-disk", "pinhole_spacing_um": 1.5}
    volume = theoretical_psf(Optics(**optics), (3, 6, 5), (0.4, 0.07, 0.1), pixel_integration=False).array
    disk = instrument(**optics)
    y_um, x_um, z = np.arange(-3, 3) * 0.07, np.arange(-2, 3) * 0.1, np.arange(-1, 2) * 0.4
    radii = np.hypot(y_um[:, None], x_um)
    emission = disk.profile(radii.ravel(), *REACH)(z, 0.0).reshape(3, 6, 5)
    expected = emission * disk.factor(*REACH)(z, 0.0, y_um, x_um)
    assert_allclose(volume / volume.max(), expected / expected.max(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("pixel", [0.03, 0.1])
@pytest.mark.parametrize("saturation", [1, 30, 300])
def test_pixels_of_a_sted_microscope_are_means_over_their_area(pixel, saturation):
    # its spectrum has no sharp end
    optics = {**STED, "sted_saturation": saturation, "sted_residual": 0.01}
    found = theoretical_psf(Optics(**optics), (1, 5, 7), (0.1, pixel, pixel)).array[0]
    nodes, weights = np.polynomial.legendre.leggauss(24)
    y, x = (((np.arange(n) - n // 2)[:, None] + nodes / 2) * pixel for n in (5, 7))
    radii = np.hypot(y[:, :, None, None], x)
    values = table(radii.ravel(), np.zeros(1), **optics).reshape(radii.shape)
    exact = np.einsum("aibj,i,j->ab", values, weights, weights)
    assert_allclose(found / found.max(), exact / exact.max(), rtol=0, atol=1e-4)
