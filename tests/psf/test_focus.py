"""Radial models in one medium: analytic facts and frozen values of the diffraction integrals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import j1

from gpudecon.backend import get_backend
from gpudecon.optics import Optics
from gpudecon.psf.phase import Layers, pupil_nodes
from gpudecon.psf.radial import DiffractedBeam, GaussianBeam, bessel, gaussian_sigma_um, pupil_amplitudes

BACKEND = get_backend("cpu")
NA, N, WAVELENGTH = 1.4, 1.515, 0.52
HIGH = {"na": NA, "emission_nm": 520, "immersion_index": N}
LOW = {**HIGH, "na": 0.1}
MODELS = [("born-wolf", "uniform"), ("scalar", "uniform"), ("scalar", "aplanatic"), ("vectorial", "uniform")]


def intensity(r_um, z_um, model="vectorial", apodization="uniform", optics=HIGH, pattern=None):
    """I(r, z) / I(0, 0) as (z, r)."""
    beam = DiffractedBeam(BACKEND, Optics(**optics), 520, model, apodization, pattern)
    r, z = np.atleast_1d(np.asarray(r_um, float)), np.atleast_1d(np.asarray(z_um, float))
    values = beam.profile(np.append(r, 0.0), float(np.abs(z).max()), (0.0,))(np.append(z, 0.0), 0.0)
    return values[:-1, :-1] / values[-1, -1]


def zero_of(f, low, high):
    """The minimum between, where the derivative of f vanishes."""
    step = 1e-3 * low
    return brentq(lambda t: f(t + step) - f(t - step), low, high)


def fwhm(f, high):
    return 2 * brentq(lambda t: f(t) - 0.5, 0, high)


FROZEN = {  # (r, z) in um: Born-Wolf, scalar uniform, scalar aplanatic, vectorial; two quadratures agreed to 1e-13
    (0.1, 0.0): (0.46580054, 0.46580054, 0.43690128, 0.53315884),
    (0.2, 0.0): (0.01211617, 0.01211617, 0.00425076, 0.06160024),
    (0.3, 0.0): (0.01743261, 0.01743261, 0.02386436, 0.02005370),
    (0.0, 0.2): (0.81224491, 0.66194106, 0.64801425, 0.65673745),
    (0.0, 0.4): (0.40919954, 0.15338504, 0.12862849, 0.14503908),
    (0.0, 0.8): (0.00002349, 0.04715530, 0.04555092, 0.04810890),
    (0.2, 0.4): (0.07217925, 0.08080613, 0.07399061, 0.09329598),
    (0.5, 1.0): (0.02156172, 0.00986698, 0.00744914, 0.00994295),
    (1.0, 2.0): (0.00535618, 0.00260571, 0.00204038, 0.00285774),
}


@pytest.mark.parametrize("column", range(4), ids=["-".join(m) for m in MODELS])
def test_frozen_values(column):
    for (r, z), values in FROZEN.items():
        assert_allclose(intensity(r, z, *MODELS[column]).item(), values[column], rtol=0, atol=6e-9)


@pytest.mark.parametrize(("z", "value"), [(0.2, 0.64005959), (0.4, 0.11602689), (0.8, 0.04714662)])
def test_frozen_values_of_the_even_sphere(z, value):
    assert_allclose(intensity(0, z, "scalar", "debye").item(), value, rtol=0, atol=6e-9)


@pytest.mark.parametrize("na", [0.1, 0.8, 1.4])
def test_uniform_pupil_gives_airys_profile_in_focus_at_any_na(na):
    r = np.linspace(1e-3, 3, 301) / na
    v = 2 * np.pi / WAVELENGTH * na * r
    optics = {**HIGH, "na": na}
    assert_allclose(intensity(r, 0, "scalar", optics=optics)[0], (2 * j1(v) / v) ** 2, rtol=0, atol=1e-13)
    assert_allclose(intensity(r, 0, "born-wolf", optics=optics)[0], (2 * j1(v) / v) ** 2, rtol=0, atol=1e-13)


def test_born_wolf_along_the_axis():
    z = np.linspace(-3, 3, 121)
    expected = np.sinc(NA**2 * z / (2 * N * WAVELENGTH)) ** 2
    assert_allclose(intensity(0, z, "born-wolf")[:, 0], expected, rtol=0, atol=1e-12)


def test_even_sphere_along_the_axis():
    z = np.linspace(-3, 3, 121)
    expected = np.sinc((N - np.sqrt(N**2 - NA**2)) * z / WAVELENGTH) ** 2
    assert_allclose(intensity(0, z, "scalar", "debye")[:, 0], expected, rtol=0, atol=1e-12)


def test_lateral_first_zero():
    airy = 0.6098 * WAVELENGTH / NA
    scalar = zero_of(lambda r: intensity(r, 0, "scalar").item(), 0.7 * airy, 1.3 * airy)
    assert_allclose(scalar / airy, 1, atol=3e-4)
    vectorial = zero_of(lambda r: intensity(r, 0).item(), 0.9 * airy, 1.3 * airy)
    assert_allclose(vectorial / airy, 1.172, atol=1e-3)
    low = zero_of(lambda r: intensity(r, 0, optics=LOW).item(), 12 * airy, 16 * airy)
    assert_allclose(low / (14 * airy), 1.0005, atol=2e-4)


def test_lateral_width():
    unit = WAVELENGTH / NA
    scalar = fwhm(lambda r: intensity(r, 0, "scalar").item(), 0.2)
    assert_allclose(scalar / unit, 0.5145, atol=5e-5)
    assert_allclose(scalar, 0.51 * unit, rtol=0.01)
    assert_allclose(fwhm(lambda r: intensity(r, 0).item(), 0.2) / unit, 0.5642, atol=5e-5)


@pytest.mark.parametrize(("model", "ratio"), [("scalar", 0.723), ("vectorial", 0.714)])
def test_axial_first_minimum_is_not_the_paraxial_one(model, ratio):
    paraxial = 2 * N * WAVELENGTH / NA**2
    found = zero_of(lambda z: intensity(0, z, model).item(), 0.6 * paraxial, 0.85 * paraxial)
    assert_allclose(found / paraxial, ratio, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "optics", "factor"),
    [("scalar", HIGH, 0.922), ("vectorial", HIGH, 0.913), ("scalar", LOW, 0.886), ("vectorial", LOW, 0.886)],
)
def test_axial_width(model, optics, factor):
    unit = WAVELENGTH / (N - np.sqrt(N**2 - optics["na"] ** 2))
    assert_allclose(fwhm(lambda z: intensity(0, z, model, optics=optics).item(), 0.8 * unit) / unit, factor, atol=1e-3)


def test_models_agree_at_low_na():
    r, z = np.linspace(0, 10, 41), np.linspace(-200, 200, 11)
    reference = intensity(r, z, optics=LOW)
    for model, apodization in MODELS[:3]:
        assert_allclose(intensity(r, z, model, apodization, LOW), reference, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("model", "apodization"), MODELS)
def test_symmetric_in_z(model, apodization):
    r, z = np.linspace(0, 2, 21), np.linspace(0.1, 3, 7)
    up, down = intensity(r, z, model, apodization), intensity(r, -z, model, apodization)
    assert_allclose(up, down, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("model", "pattern"), [("scalar", None), ("vectorial", None), ("vectorial", "vortex")])
def test_energy_of_a_plane_is_that_of_the_pupil(model, pattern):
    optics, end = Optics(**HIGH), 30.0
    beam = DiffractedBeam(BACKEND, optics, 520, model, "uniform", pattern)
    x, w = np.polynomial.legendre.leggauss(900)
    r, w = end * (x + 1) / 2, end * w / 2
    planes = beam.profile(r, 3.0, (0.0,))(np.array([0.0, 1.0, 3.0]), 0.0) @ (2 * np.pi * r * w)
    assert_allclose(planes, planes[0], rtol=3e-4)
    # the edge of the pupil scatters wavelength / (pi^2 NA r) of the light beyond r, times its share of the light
    layers, edge = Layers.of(optics), np.array([NA])
    nodes = pupil_nodes(layers, NA, 1.0)

    def light(s):
        parts = pupil_amplitudes(layers, s, model, 0.0)
        return sum((2 if j == 1 else 1) * np.abs(a) ** 2 for j, a in enumerate(parts))

    share = light(edge).item() / (nodes.weight @ light(nodes.s)) * NA**2 / 2
    assert_allclose(planes[0] / beam.energy(0.0), 1 - share * WAVELENGTH / (np.pi**2 * NA * end), rtol=1e-5)


@pytest.mark.parametrize("depth", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("model", ["scalar", "vectorial"])
def test_energy_at_a_depth_is_without_the_waves_that_have_decayed(model, depth):
    """Of a wave with s > n the intensity decays as exp(-2 k0 depth sqrt(s^2 - n^2)); adaptive quadrature of the pupil.

    With s = n cosh(v) there, the root is n sinh(v).
    """
    n, k0 = 1.33, 2 * np.pi / WAVELENGTH
    optics = Optics(na=1.49, emission_nm=520, immersion_index=N, sample_index=n)

    def light(s):
        parts = pupil_amplitudes(Layers.of(optics), np.array([s]), model, 0.0)
        return s * sum((2 if j == 1 else 1) * abs(a.item()) ** 2 for j, a in enumerate(parts))

    def evanescent(v):
        return light(n * np.cosh(v)) * np.exp(-2 * k0 * depth * n * np.sinh(v)) * n * np.sinh(v)

    ends = (0, n), (0, 0.01), (0.01, 0.1), (0.1, np.arccosh(1.49 / n))
    integral = sum(quad(f, *end, limit=200)[0] for f, end in zip((light, *[evanescent] * 3), ends, strict=True))
    beam = DiffractedBeam(BACKEND, optics, 520, model, "uniform")
    assert_allclose(beam.energy(depth), 2 * np.pi / k0**2 * integral, rtol=1e-7)  # of quad


@pytest.mark.parametrize("pattern", [None, "vortex", "bottle"])
@pytest.mark.parametrize("sample_index", [1.515, 1.33])
def test_quadrature_is_converged(monkeypatch, pattern, sample_index):
    optics = Optics(**HIGH, sample_index=sample_index)
    beam = DiffractedBeam(BACKEND, optics, 520, "vectorial", "uniform", pattern)
    r, z = np.linspace(0, 8, 161), np.linspace(-4, 4, 9)
    depths = (0.0, 1.0, 12.0)
    chosen = [beam.profile(r, 4.0, depths)(z, d) for d in depths]
    monkeypatch.setattr(
        "gpudecon.psf.radial.pupil_nodes",
        lambda *a, **k: pupil_nodes(*a, **{**k, "r_um": 2 * k["r_um"], "z_um": 2 * k["z_um"]}),
    )
    for depth, values in zip(depths, chosen, strict=True):
        finer = beam.profile(r, 4.0, depths)(z, depth)
        assert_allclose(values, finer, rtol=0, atol=1e-11 * finer.max())


def test_nodes_integrate_the_disc():
    nodes = pupil_nodes(Layers.of(Optics(**HIGH, sample_index=1.33)), NA, 12.0)
    assert_allclose(nodes.weight.sum(), NA**2 / 2, rtol=1e-14)
    assert_allclose(nodes.weight @ nodes.s**4, NA**6 / 6, rtol=1e-14)


@pytest.mark.parametrize("order", range(4))
def test_bessel_functions(order):
    from scipy.special import jv

    x = np.concatenate([[0.0], np.geomspace(1e-9, 1, 500), np.linspace(1, 300, 5000)])
    (found,) = bessel(BACKEND, order, 1, x)
    assert_allclose(found, jv(order, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
def test_vortex_and_bottle_are_dark_in_the_middle(model):
    r, z = np.linspace(0, 1, 101), np.linspace(-2, 2, 101)
    for pattern in ("vortex", "bottle"):
        beam = DiffractedBeam(BACKEND, Optics(**HIGH), 775, model, "uniform", pattern)
        values = beam.profile(r, 2.0, (0.0,))(z, 0.0)
        assert values[50, 0] < 1e-12 * values.max()
    assert values[:, 0].max() == values.max()  # a bottle's walls are above and below


def test_gaussian_widths():
    k0 = 2 * np.pi / WAVELENGTH
    lateral, axial = gaussian_sigma_um(Optics(**LOW))
    assert_allclose(lateral, np.sqrt(2) / (k0 * 0.1), rtol=2e-3)
    assert_allclose(axial, 2 * np.sqrt(6) * N / (k0 * 0.1**2), rtol=5e-3)
    values = GaussianBeam(BACKEND, Optics(**LOW), 520).profile(np.array([0.0, lateral]), 0.0, (0.0,))
    assert_allclose(values(np.array([0.0, axial]), 0.0)[:, 1], [np.exp(-0.5), np.exp(-1)])
