"""The pupil model: agreement with the radial one, Zernike modes, masks and vortices."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpudecon.backend import get_backend
from gpudecon.errors import InputError
from gpudecon.optics import Optics
from gpudecon.psf.phase import Layers
from gpudecon.psf.pupil import Pupil, pupil_chords, pupil_psf
from gpudecon.psf.radial import DiffractedBeam
from gpudecon.psf.theory import theoretical_psf
from gpudecon.psf.zernike import NAMES, mode, noll, osa, zernike

BACKEND = get_backend("cpu")
OIL = Optics(na=1.4, emission_nm=520, immersion_index=1.515)
PARAXIAL = Optics(na=0.1, emission_nm=520, immersion_index=1.0)
SHAPE, VOXEL = (5, 14, 17), (0.3, 0.065, 0.08)


def changed(**changes):
    return Optics(**{**vars(OIL), **changes})


@pytest.mark.parametrize("pixel_integration", [False, True])
@pytest.mark.parametrize(
    ("optics", "model", "apodization"),
    [
        (OIL, "scalar", "uniform"),
        (OIL, "scalar", "aplanatic"),
        (OIL, "vectorial", None),
        (changed(sample_index=1.38, depth_um=6.0), "scalar", None),
        (changed(sample_index=1.33, depth_um=0.0), "vectorial", None),
        (changed(sample_index=1.33, depth_um=1.5), "vectorial", None),
        (changed(coverslip_um_design=150.0, coverslip_index=1.53), "vectorial", None),
    ],
)
def test_without_aberration_it_is_the_radial_model(optics, model, apodization, pixel_integration):
    arguments = {"model": model, "apodization": apodization, "pixel_integration": pixel_integration}
    expected = theoretical_psf(optics, SHAPE, VOXEL, **arguments).array
    found = pupil_psf(optics, SHAPE, VOXEL, {}, **arguments).array
    assert_allclose(found, expected, rtol=0, atol=1e-6 * expected.max())


def test_a_plane_is_the_one_in_focus():
    plane = pupil_psf(OIL, SHAPE[1:], VOXEL[1:], {"coma x": 0.5}).array
    stack = pupil_psf(OIL, SHAPE, VOXEL, {"coma x": 0.5}).array
    assert_allclose(plane, stack[2] / stack[2].sum(), rtol=0, atol=1e-6 * plane.max())


def test_nodes_integrate_the_disc():
    for optics in (OIL, changed(sample_index=1.33)):
        zones = list(pupil_chords(Layers.of(optics), optics, 12.0, 1.0, 1.0, 0.0))
        x, y, w = (
            np.concatenate([part.ravel() for part in parts])
            for parts in zip(*((c.x[:, None] + 0 * c.y, c.y, c.weight) for c in zones), strict=True)
        )
        # the corners of the evanescent ring are not smooth: 1e-7 there
        assert_allclose([w.sum(), w @ x**2, w @ y**2], np.pi * np.array([1.4**2, 1.4**4 / 4, 1.4**4 / 4]), rtol=1e-6)
        assert_allclose([w @ x, w @ y, w @ (x * y)], 0, atol=1e-12)


@pytest.mark.parametrize(("model", "polarization"), [("scalar", "random"), ("vectorial", "circular")])
def test_vortex_is_the_radial_one(model, polarization):
    z, r = np.arange(-2, 3) * 0.3, np.arange(9) * 0.08
    exact = DiffractedBeam(BACKEND, OIL, 520, model, "uniform", "vortex").profile(r, 0.6, (0.0,))(z, 0.0)
    arguments = {"vortex": 1, "polarization": polarization, "model": model, "pixel_integration": False}
    found = pupil_psf(OIL, (5, 1, 17), VOXEL, {}, **arguments).array[:, 0, 8:]
    assert_allclose(found / found.max(), exact / exact.max(), rtol=0, atol=1e-6)
    wrong = pupil_psf(OIL, (1, 17), VOXEL[1:], {}, vortex=-1, polarization="circular").array[0]
    assert wrong[8] > 0.2 * wrong.max()  # the other handedness does not leave the middle dark


def test_modes_are_orthonormal():
    x, w = np.polynomial.legendre.leggauss(20)
    rho, phi = ((x + 1) / 2)[:, None], np.arange(40) * np.pi / 20
    weight = (w / 2 * (x + 1) / 2 * 2)[:, None] / 40
    values = np.array([zernike(*noll(j), rho, phi) for j in range(1, 37)])
    assert_allclose(np.einsum("arp,brp,rp->ab", values, values, weight + 0 * phi), np.eye(36), atol=1e-12)


def test_numbers_and_names():
    assert [noll(j) for j in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22)] == [
        (0, 0), (1, 1), (1, -1), (2, 0), (2, -2), (2, 2), (3, -1), (3, 1), (3, -3), (3, 3), (4, 0), (6, 0),
    ]  # fmt: skip
    assert [osa(j) for j in (0, 1, 2, 3, 4, 5, 12, 14)] == [
        (0, 0), (1, -1), (1, 1), (2, -2), (2, 0), (2, 2), (4, 0), (4, 4),
    ]  # fmt: skip
    every = {osa(j) for j in range(66)}
    assert every == {noll(j) for j in range(1, 67)}
    assert set(NAMES.values()) <= every
    assert mode("spherical") == mode(11) == mode(12, "osa") == (4, 0)
    rho, phi = np.array([0.3, 0.9]), np.array([0.5, 2.0])
    spherical = np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1)
    assert_allclose(zernike(4, 0, rho, phi), spherical)
    assert_allclose(zernike(3, -1, rho, phi), np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.sin(phi))


def test_tilt_moves_by_its_slope():
    # c sqrt(4) rho cos(phi) is a slope of 2 c / NA radians per s, so the point moves by -2 c / (k0 NA)
    c = 2 * np.pi / 0.52 * 1.4 * 0.13 / 2  # 2 pixels
    moved = pupil_psf(OIL, (3, 9, 17), (0.3, 0.065, 0.065), {"tilt x": c}, pixel_integration=False).array
    still = pupil_psf(OIL, (3, 9, 17), (0.3, 0.065, 0.065), {}, pixel_integration=False).array
    assert_allclose(moved[..., :-2] / moved.max(), still[..., 2:] / still.max(), rtol=0, atol=1e-6)


def test_zernike_defocus_is_defocus_at_low_na():
    # z s^2 / (2 n) = c sqrt(3) 2 rho^2 / k0 in the paraxial limit
    voxel = (40.0, 0.7, 0.7)
    c = 2 * np.pi / 0.52 * 40 * 0.1**2 / (4 * np.sqrt(3))
    moved = pupil_psf(PARAXIAL, (3, 15, 15), voxel, {"defocus": c}).array
    still = pupil_psf(PARAXIAL, (3, 15, 15), voxel, {}).array
    assert_allclose(moved[0] / moved.max(), still[1] / still.max(), rtol=0, atol=2e-3)


def test_aberrated_field_by_polar_quadrature():
    coefficients = {"astigmatism oblique": 0.7, "coma y": -0.5, "trefoil x": 0.4, "spherical": 0.6, 20: 0.3}
    found = pupil_psf(OIL, SHAPE, VOXEL, coefficients, model="scalar", pixel_integration=False).array
    x, w = np.polynomial.legendre.leggauss(60)
    rho, phi = ((x + 1) / 2)[:, None], np.arange(120) * np.pi / 60
    phase = sum(c * zernike(*mode(key), rho, phi) for key, c in coefficients.items())
    s, k0 = 1.4 * rho, 2 * np.pi / 0.52
    defocus = 1.515 - np.sqrt(1.515**2 - s**2)
    z, y, x = ((np.arange(n) - n // 2) * v for n, v in zip(SHAPE, VOXEL, strict=True))
    planes = np.exp(1j * (phase + k0 * z[:, None, None] * defocus)) * (w[:, None] * rho)
    waves_y = np.exp(1j * k0 * y[:, None, None] * s * np.sin(phi)).reshape(len(y), -1)
    waves_x = np.exp(1j * k0 * x[:, None, None] * s * np.cos(phi)).reshape(len(x), -1)
    field = np.einsum("zp,yp,xp->zyx", planes.reshape(len(z), -1), waves_y, waves_x, optimize=True)
    exact = np.abs(field) ** 2
    assert_allclose(found / found.max(), exact / exact.max(), rtol=0, atol=1e-6)


def test_aberrations_have_their_symmetry():
    coma = pupil_psf(OIL, (3, 15, 15), VOXEL, {"coma x": 0.8, "spherical": 0.4}).array
    assert_allclose(coma, coma[:, ::-1], rtol=0, atol=1e-6 * coma.max())
    assert np.abs(coma - coma[:, :, ::-1]).max() > 0.1 * coma.max()
    turned = pupil_psf(OIL, (3, 15, 15), (0.3, 0.08, 0.065), {"coma y": 0.8, "spherical": 0.4}).array
    assert_allclose(turned.transpose(0, 2, 1), coma, rtol=0, atol=1e-6 * coma.max())
    negative = pupil_psf(OIL, (3, 15, 15), VOXEL, {"coma x": -0.8, "spherical": -0.4}).array
    assert_allclose(negative[::-1], coma[:, :, ::-1], rtol=0, atol=1e-6 * coma.max())


def test_numberings_name_the_same():
    a = pupil_psf(OIL, (7, 9), VOXEL[1:], {8: 0.3}).array
    b = pupil_psf(OIL, (7, 9), VOXEL[1:], {8: 0.3}, numbering="osa").array  # (3, 1) in both
    np.testing.assert_array_equal(a, b)


def test_amplitude_mask():
    # a Gaussian pupil at low NA has a Gaussian focus: exp(-(rho / w)^2) -> exp(-(k0 NA w r)^2 / 2) in intensity
    waist, pixel = 0.25, 1.2
    found = pupil_psf(
        PARAXIAL, (1, 17), (pixel, pixel), {}, amplitude=lambda rho, phi: np.exp(-((rho / waist) ** 2)),
        pixel_integration=False, model="scalar",
    ).array[0]  # fmt: skip
    r = (np.arange(17) - 8) * pixel
    expected = np.exp(-((2 * np.pi / 0.52 * 0.1 * waist * r) ** 2) / 2)
    assert_allclose(found / found.max(), expected, rtol=0, atol=2e-6)
    half = pupil_psf(OIL, (1, 17), VOXEL[1:], {}, amplitude=lambda rho, phi: (np.cos(phi) > 0) * 1.0).array[0]
    full = pupil_psf(OIL, (1, 17), VOXEL[1:], {}).array[0]
    assert np.sum(half > half.max() / 2) > np.sum(full > full.max() / 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zernike_rad": {"comma": 1.0}}, "Unknown Zernike mode 'comma'"),
        ({"zernike_rad": {0: 1.0}}, "Zernike mode 0 does not exist"),
        ({"zernike_rad": {10**6: 1.0}}, "does not exist"),
        ({"zernike_rad": {4: np.nan}}, "must be a finite number"),
        ({"zernike_rad": {4: 1.0}, "numbering": "fringe"}, "Unknown numbering 'fringe'"),
        ({"vortex": 0.5}, "must be a whole number"),
        ({"polarization": "x"}, "Unknown polarization 'x'"),
        ({"polarization": "circular", "model": "scalar"}, "needs model 'vectorial'"),
        ({"model": "born-wolf"}, "Unknown pupil model 'born-wolf'"),
        ({"apodization": "aplanatic"}, "for model 'scalar'"),
        ({"amplitude": lambda rho, phi: -rho}, "not negative"),
        ({"amplitude": lambda rho, phi: rho * np.inf}, "finite"),
        ({"shape": (2, 2, 2, 2)}, "shape is"),
        ({"optics": changed(modality="confocal", excitation_nm=488, pinhole_au=1)}, "models 'widefield' only"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, said):
    arguments = {"optics": OIL, "shape": SHAPE, "voxel_um": VOXEL, "zernike_rad": {}, **changes}
    with pytest.raises(InputError, match=said):
        pupil_psf(**arguments)


def test_pupil_is_complete_after_construction():
    pupil = Pupil({"spherical": 0.2}, vortex=2)
    rho, phi = np.array([0.0, 0.5]), np.array([0.3, -2.0])
    expected = np.exp(1j * (2 * phi + 0.2 * zernike(4, 0, rho, phi)))
    assert_allclose(pupil.values(rho, phi), expected)


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    on_cpu, on_gpu = (pupil_psf(OIL, SHAPE, VOXEL, {"coma x": 0.5}, device=d).array for d in ("cpu", "cuda"))
    assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-6 * on_cpu.max())
