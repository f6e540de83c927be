"""theoretical_psf: grids, pixels, spectra, depths, devices and what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import j0

from gpudecon.backend import get_backend
from gpudecon.deconvolve import deconvolve
from gpudecon.errors import InputError
from gpudecon.optics import Optics
from gpudecon.psf.quadrature import gauss_legendre
from gpudecon.psf.radial import DiffractedBeam
from gpudecon.psf.sampling import Lateral, box_weights
from gpudecon.psf.theory import theoretical_psf, theoretical_psfs

BACKEND = get_backend("cpu")
OIL = Optics(na=1.4, emission_nm=520, immersion_index=1.515)
WATER = Optics(na=1.3, emission_nm=514, immersion_index=1.515, sample_index=1.33)
VOXEL = (0.1, 0.065, 0.065)


def intensity(optics, z, radii, model="vectorial", depth=0.0):
    beam = DiffractedBeam(BACKEND, optics, optics.emission_nm, model, "uniform")
    radii = np.asarray(radii, float)
    return beam.profile(radii.ravel(), float(np.abs(z).max()), (depth,))(z, depth).reshape(len(z), *radii.shape)


@pytest.mark.parametrize("shape", [(5, 7, 9), (6, 8, 10), (1, 1, 1), (2, 9, 4), (7, 1, 12), (9, 8), (1, 6)])
@pytest.mark.parametrize("pixel_integration", [True, False])
def test_any_shape_has_its_peak_in_the_middle_and_sum_1(shape, pixel_integration):
    voxel = (0.2, 0.08, 0.11)[-len(shape) :]
    psf = theoretical_psf(OIL, shape, voxel, pixel_integration=pixel_integration)
    assert psf.array.shape == shape
    assert psf.voxel_um == voxel
    assert np.unravel_index(psf.array.argmax(), shape) == tuple(n // 2 for n in shape)
    assert_allclose(psf.array.sum(dtype=np.float64), 1, rtol=1e-6)
    for axis, n in enumerate(shape):  # what has a mirror image equals it; an even length has one sample without
        inside = np.delete(psf.array, 0, axis) if n % 2 == 0 else psf.array
        assert_array_equal(inside, np.flip(inside, axis))


def test_square_pixels_give_quarter_turns():
    array = theoretical_psf(OIL, (3, 15, 15), VOXEL).array
    assert_allclose(np.rot90(array, axes=(1, 2)), array, rtol=0, atol=1e-6 * array.max())


def test_a_plane_is_the_one_in_focus():
    plane = theoretical_psf(OIL, (9, 10), VOXEL[1:]).array
    stack = theoretical_psf(OIL, (4, 9, 10), VOXEL).array
    assert_allclose(plane, stack[2] / stack[2].sum(), rtol=2e-6)


@pytest.mark.parametrize("model", ["vectorial", "scalar", "born-wolf"])
@pytest.mark.parametrize("shape", [(5, 33, 40), (4, 40, 33)])
def test_samples_are_the_integrals(model, shape):
    psf = theoretical_psf(OIL, shape, (0.4, 0.065, 0.05), model=model, pixel_integration=False).array
    z, y, x = (
        (np.arange(n) - n // 2) * v for n, v in zip(shape, (0.4, 0.065, 0.05), strict=True)
    )  # fmt: skip
    exact = intensity(OIL, z, np.hypot(y[:, None], x), model)
    assert_allclose(psf / psf.max(), exact / exact.max(), rtol=0, atol=1e-6)


def test_samples_of_a_mismatched_medium_are_the_integrals():
    shape, voxel = (7, 12, 15), (0.3, 0.08, 0.08)
    psf = theoretical_psfs(WATER, [7.0], shape, voxel, pixel_integration=False, axial_origin="paraxial")[0].array
    z, y, x = ((np.arange(n) - n // 2) * v for n, v in zip(shape, voxel, strict=True))
    exact = intensity(WATER, z, np.hypot(y[:, None], x), depth=7.0)
    assert_allclose(psf / psf.max(), exact / exact.max(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pixel", [0.03, 0.065, 0.1, 0.16, 0.3])
def test_pixels_are_means_over_their_area(pixel):
    shape, voxel = (2, 6, 9), (0.5, pixel, 0.8 * pixel)
    psf = theoretical_psf(OIL, shape, voxel).array
    z, y, x = ((np.arange(n) - n // 2) * v for n, v in zip(shape, voxel, strict=True))

    def mean(nodes, weights):
        at_y, at_x = (c[:, None] + nodes * v / 2 for c, v in ((y, voxel[1]), (x, voxel[2])))
        values = intensity(OIL, z, np.hypot(at_y[:, :, None, None], at_x))
        return np.einsum("zaibj,i,j->zab", values, weights, weights) / 4

    exact = mean(*np.polynomial.legendre.leggauss(12))
    assert_allclose(psf / psf.max(), exact / exact.max(), rtol=0, atol=2e-6)
    middles = mean((np.arange(9) - 4) * 2 / 9, np.full(9, 2 / 9))
    assert_allclose(psf / psf.max(), middles / middles.max(), rtol=0, atol=2e-4 if pixel < 0.1 else 3e-3)


@pytest.mark.parametrize(("pixel", "excess"), [(0.065, 0.04), (0.1, 0.10), (0.13, 0.18), (0.16, 0.28)])
def test_points_overstate_the_peak(pixel, excess):
    axes = [Lateral.of(65, pixel, 2 * 1.4 / 0.52) for _ in "yx"]
    y, x = (np.abs(axis.samples) for axis in axes)
    samples = intensity(OIL, np.zeros(1), np.hypot(y[:, None], x))[0]
    pixels = axes[0].average @ samples @ axes[1].average.T
    assert_allclose(samples.max() / pixels.max(), 1 + excess, atol=0.006)


@pytest.mark.parametrize(("cutoff", "parts"), [(0.375, 1), (0.35, 1), (0.05, 1), (0.36, 2), (0.3, 5)])
def test_weights_of_a_pixel_have_the_spectrum_of_a_box(cutoff, parts):
    weights = box_weights(cutoff, parts)
    f = np.linspace(0, cutoff, 999)
    spectrum = weights[0] + 2 * np.cos(2 * np.pi * np.multiply.outer(f, np.arange(1, len(weights)))) @ weights[1:]
    assert_allclose(spectrum, np.sinc(f * parts), rtol=0, atol=3e-7)


def otf(array):
    """Real part after a check that nothing else is left, (kz, ky, kx)."""
    spectrum = np.fft.fftn(np.fft.ifftshift(array.astype(np.float64)))
    assert np.abs(spectrum.imag).max() < 1e-6
    return spectrum.real


def test_otf_of_odd_shapes_is_real_and_ends_where_it_must():
    n, voxel = 255, (0.12, 0.065, 0.065)
    spectrum = np.abs(otf(theoretical_psf(OIL, (65, n, n), voxel).array))
    k = np.fft.fftfreq(n, voxel[1])
    kr = np.hypot(k[:, None], k)
    assert_allclose(spectrum[0, 0, 0], 1, rtol=1e-6)
    outside = spectrum[:, kr > 2 * 1.4 / 0.52 + 2 * k[1]]
    assert outside.max() < 1e-4  # what the window cuts off; in focus it is less:
    focus = theoretical_psf(OIL, (n, n), voxel[1:]).array
    assert np.abs(otf(focus))[kr > 2 * 1.4 / 0.52 + 2 * k[1]].max() < 1e-5


def test_axial_support_and_missing_cone():
    # Hankel transforms of planes far out of focus, Fourier transformed along z under a smooth window.
    na, wavelength, kr = 0.8, 0.52, np.array([0.0, 0.25, 0.7, 1.2, 0.8 / 0.52, 2.2, 2.9, 3.3])
    optics = Optics(na=na, emission_nm=520, immersion_index=1.0, coverslip_um=0)
    z = (np.arange(256) - 128) * 0.16
    r, weight = gauss_legendre(0.0, 60.0, 2 * np.pi * 60 * 6.2)
    t = np.clip((60 - r) / 20, 0, 1)
    weight = weight * t**3 * (10 - 15 * t + 6 * t**2)  # a smooth end
    kernel = 2 * np.pi * (r * weight)[:, None] * j0(2 * np.pi * np.multiply.outer(r, kr))
    planes = intensity(optics, z, r) @ kernel
    window = np.kaiser(257, 14)[:-1]
    spectrum = np.abs(np.fft.fft(planes * window[:, None], axis=0)) / np.abs(planes[:, 0] @ window)
    kz = np.abs(np.fft.fftfreq(256, 0.16))
    width = 6 / (256 * 0.16)  # of the window's own spectrum
    cos_alpha = np.sqrt(1 - na**2)
    edge = (np.sqrt(1 - (na - kr * wavelength) ** 2) - cos_alpha) / wavelength
    assert edge.max() <= (1 - cos_alpha) / wavelength + 1e-12
    for i in range(len(kr)):
        beyond = kz > (edge[i] if kr[i] < 2 * na / wavelength else 0) + width
        assert spectrum[beyond, i].max() < 1e-4
    assert spectrum[:, 2 * na / wavelength < kr].max() < 1e-4
    # and inside it is not empty, as far as the edge at the largest kz
    reached = kz[spectrum[:, 4] > 1e-3].max()
    assert_allclose(reached, (1 - cos_alpha) / wavelength, atol=width)


def test_plane_sums_are_missing_only_what_leaves_the_window():
    sums = theoretical_psf(OIL, (5, 301, 301), (0.5, 0.065, 0.065)).array.sum(axis=(1, 2), dtype=np.float64)
    assert_allclose(sums / sums[2], 1, rtol=0.015)


@pytest.mark.parametrize("shape", [(5, 9, 11), (6, 8, 12)])
def test_a_point_is_imaged_where_it_is(shape):
    psf = theoretical_psf(OIL, shape, (0.3, 0.1, 0.1))
    image = np.zeros((12, 24, 26), np.float32)
    image[tuple(slice(5 - n // 2, 5 - n // 2 + n) if i == 0 else slice(11 - n // 2, 11 - n // 2 + n)
                for i, n in enumerate(shape))] = psf.array  # fmt: skip
    restored = deconvolve(image, psf, iterations=20, device="cpu")
    assert np.unravel_index(restored.argmax(), image.shape) == (5, 11, 11)


def test_depths_in_one_call():
    depths = [0.0, 2.5, 12.0]
    many = theoretical_psfs(WATER, depths, (9, 11, 12), (0.25, 0.08, 0.08))
    for depth, psf in zip(depths, many, strict=True):
        optics = Optics(na=1.3, emission_nm=514, immersion_index=1.515, sample_index=1.33, depth_um=depth)
        single = theoretical_psf(optics, (9, 11, 12), (0.25, 0.08, 0.08))
        assert_allclose(psf.array, single.array, rtol=0, atol=2e-7 * single.array.max())
        assert psf.array.argmax() == np.ravel_multi_index((4, 5, 6), psf.shape)
    assert many[0].array.max() > 1.5 * many[2].array.max()


def test_oil_into_water_trails_light_beyond_the_focus():
    # Marginal rays from a source in water cross the axis where the stage has gone further than for paraxial ones:
    # a ray leaves at s / 1.33, and the stage must move by depth * sqrt(1.515^2 - s^2) / sqrt(1.33^2 - s^2).
    psf = theoretical_psfs(WATER, [15.0], (81, 5, 5), (0.2, 0.08, 0.08))[0].array
    axis = psf[:, 2, 2]
    assert axis[41:].sum() > 1.3 * axis[:40].sum()


def test_origins_move_the_same_psf():
    shape, voxel = (41, 3, 3), (0.05, 0.1, 0.1)
    moved = [
        theoretical_psfs(WATER, [2.0], shape, voxel, axial_origin=origin)[0].array
        for origin in ("peak", "paraxial", "emitter")
    ]
    peaks = [int(a[:, 1, 1].argmax()) for a in moved]
    assert peaks[0] == 20
    assert 20 < peaks[1] < peaks[2]
    assert_allclose((peaks[2] - peaks[1]) * 0.05, 2 * (1.515 / 1.33 - 1), atol=0.05)


@pytest.mark.parametrize("modality", [{}, {"modality": "confocal", "excitation_nm": 488, "pinhole_au": 1}])
def test_gaussian_has_the_width_of_the_psf(modality):
    optics = Optics(na=0.5, emission_nm=520, immersion_index=1.0, **modality)
    shape, voxel = (17, 25, 25), (0.4, 0.1, 0.1)
    gaussian = theoretical_psf(optics, shape, voxel, model="gaussian").array
    exact = theoretical_psf(optics, shape, voxel).array
    for line in (np.s_[8, 12], np.s_[:, 12, 12]):
        half = [np.sum(a[line] > a[line].max() / 2) for a in (gaussian, exact)]
        assert abs(half[0] - half[1]) <= 1


def test_gaussian_of_a_camera_is_the_integral_over_its_pixels():
    from scipy.special import erf

    from gpudecon.psf.radial import gaussian_sigma_um

    line = theoretical_psf(OIL, (1, 9), (0.1, 0.1), model="gaussian").array[0]
    edges = (np.arange(10) - 4.5) * 0.1 / (gaussian_sigma_um(OIL)[0] * np.sqrt(2))
    expected = np.diff(erf(edges))
    assert_allclose(line, expected / expected.sum(), rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "optics",
    [
        OIL,
        Optics(**{**vars(WATER), "depth_um": 5.0}),
        Optics(**{**vars(OIL), "modality": "confocal", "excitation_nm": 488, "pinhole_au": 1}),
        Optics(
            **{**vars(OIL), "modality": "spinning-disk", "excitation_nm": 488, "pinhole_au": 1, "pinhole_spacing_um": 2}
        ),
        Optics(**{**vars(OIL), "modality": "sted", "excitation_nm": 488, "sted_nm": 592, "sted_saturation": 9}),
    ],
    ids=lambda o: o.modality,
)
def test_gpu_and_cpu_agree(optics):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    on_cpu, on_gpu = (theoretical_psf(optics, (9, 33, 40), VOXEL, device=d).array for d in ("cpu", "cuda"))
    assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-6 * on_cpu.max())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "airy"}, "Unknown PSF model 'airy'"),
        ({"apodization": "flat", "model": "scalar"}, "Unknown apodization 'flat'"),
        ({"apodization": "aplanatic"}, "belongs to model 'scalar'"),
        ({"axial_origin": "top"}, "Unknown axial_origin 'top'"),
        ({"shape": (3, 4, 5, 6)}, "shape is"),
        ({"shape": (3, 0, 5)}, "shape is"),
        ({"voxel_um": (0.1, 0.1)}, "voxel_um is"),
        ({"voxel_um": 0.1}, "voxel_um is"),
        ({"device": "tpu"}, "Unknown device"),
        ({"depths_um": []}, "depths_um is"),
        ({"depths_um": [-1.0]}, "depths_um is"),
        ({"optics": WATER, "depths_um": [3.0], "model": "gaussian"}, "knows no aberration"),
        ({"optics": WATER, "depths_um": [3.0], "model": "born-wolf"}, "knows no aberration"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, said):
    arguments = {"optics": OIL, "depths_um": [0.0], "shape": (3, 4, 5), "voxel_um": VOXEL, **changes}
    with pytest.raises(InputError, match=said):
        theoretical_psfs(**arguments)


def test_gaussian_sted_is_refused():
    sted = Optics(**{**vars(OIL), "modality": "sted", "excitation_nm": 488, "sted_nm": 592, "sted_saturation": 9})
    with pytest.raises(InputError, match="no depletion beam"):
        theoretical_psf(sted, (3, 4, 5), VOXEL, model="gaussian")
