"""Immersion, coverslip and specimen: phases, Fresnel coefficients, evanescent light, focal shift."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpudecon.backend import get_backend
from gpudecon.optics import Optics
from gpudecon.psf.modality import INSTRUMENTS, focus_um, origin_um
from gpudecon.psf.phase import Layers
from gpudecon.psf.radial import DiffractedBeam
from gpudecon.psf.theory import beam_of

BACKEND = get_backend("cpu")
OIL = {"na": 1.4, "emission_nm": 520, "immersion_index": 1.515}
R, Z = np.linspace(0, 3, 61), np.linspace(-2, 2, 21)


def table(depth=0.0, z=Z, r=R, model="vectorial", **changes):
    optics = Optics(**{**OIL, **changes})
    return DiffractedBeam(BACKEND, optics, 520, model, "uniform").profile(r, float(np.abs(z).max()), (depth,))(z, depth)


@pytest.mark.parametrize("sample_index", [1.33, 1.6])
def test_path_against_gibson_and_lanni_in_many_digits(sample_index):
    optics = Optics(
        na=1.3, emission_nm=520, immersion_index=1.51, sample_index=sample_index, coverslip_index=1.52,
        coverslip_um=180, immersion_index_design=1.515, coverslip_index_design=1.525, coverslip_um_design=170,
        immersion_um=140,
    )  # fmt: skip
    s = np.array([0.3, 0.8, 1.1, 1.29])
    layers = Layers.of(optics)
    found = layers.aberration(s, 30.0) + 1.75 * layers.defocus(s)
    with localcontext(prec=50):
        ni, ng, ni0, ng0, ns = map(Decimal, ("1.51", "1.52", "1.515", "1.525", str(sample_index)))
        depth, z, tg, tg0, ti0 = map(Decimal, ("30", "1.75", "180", "170", "140"))
        ti = depth - (z + depth) + ni * (-depth / ns - tg / ng + tg0 / ng0 + ti0 / ni0)

        def path(s):
            media = ((depth, ns), (ti, ni), (-ti0, ni0), (tg, ng), (-tg0, ng0))
            return sum(t * (n * n - s * s).sqrt() for t, n in media)

        expected = [float(path(Decimal(float(value))) - path(Decimal(0))) for value in s]
    assert_allclose(found, expected, rtol=0, atol=1e-12)  # of paths of 300 um


def test_layers_as_designed_change_nothing():
    reference = table()
    for changes in (
        {"coverslip_um": 130.0},
        {"immersion_um": 1.0},
        {"coverslip_um": 99.0, "coverslip_um_design": 99.0, "immersion_index_design": 1.515},
        {"coverslip_um": 0.0, "coverslip_um_design": 0.0},
    ):
        assert_allclose(table(**changes), reference, rtol=0, atol=1e-14 * reference.max())
    np.testing.assert_array_equal(table(depth=25.0), reference)  # the same index at any depth


@pytest.mark.parametrize("changes", [{"coverslip_index": 1.6}, {"coverslip_um": 150.0, "coverslip_index": 1.53}])
def test_scalar_phase_of_a_coverslip_as_designed(changes):
    assert_allclose(table(model="scalar", **changes), table(model="scalar"), rtol=1e-12)


def test_a_wrong_coverslip_or_immersion_aberrates():
    best = table().max()
    wrong = ({"coverslip_um_design": 150.0, "coverslip_index": 1.6}, {"immersion_index_design": 1.51})
    for changes in wrong:
        assert Layers.of(Optics(**{**OIL, **changes})).is_aberrated(0.0)
        assert table(z=np.linspace(-8, 8, 321), **changes).max() < 0.9 * best


def test_fresnel_coefficients():
    s = np.linspace(0, 1.39, 30)
    matched = Layers.of(Optics(**OIL)).transmission(s)
    assert_allclose(matched, np.ones((2, 30)), rtol=1e-15)
    # energy is conserved at a surface: T = (n2 cos2 / n1 cos1) |t|^2 = 1 - R, with R of the reflection coefficients
    water = Layers.of(Optics(na=1.2, emission_nm=520, immersion_index=1.45, sample_index=1.33, coverslip_um=0))
    s = np.linspace(0, 1.19, 30)
    t_s, t_p = water.transmission(s)
    c1, c2 = np.sqrt(1.45**2 - s**2), np.sqrt(1.33**2 - s**2)
    r_s = (c1 - c2) / (c1 + c2)
    r_p = (1.33**2 * c1 - 1.45**2 * c2) / (1.33**2 * c1 + 1.45**2 * c2)
    assert_allclose(c2 / c1 * np.abs(t_s) ** 2, 1 - r_s**2, rtol=1e-12)
    assert_allclose(c2 / c1 * np.abs(t_p) ** 2, 1 - r_p**2, rtol=1e-12)


def test_waves_beyond_the_critical_angle_fade_with_depth():
    layers = Layers.of(Optics(**OIL, sample_index=1.33))
    s = np.array([1.34, 1.39])
    fading = np.exp(2j * np.pi / 0.52 * layers.aberration(s, 1.0))
    assert_allclose(np.abs(fading), np.exp(-2 * np.pi / 0.52 * np.sqrt(s**2 - 1.33**2)), rtol=1e-12)


def test_deep_in_water_the_aperture_ends_at_its_index():
    deep = table(depth=6.0, sample_index=1.33)
    # all but the last fraction of the same cone, without evanescent waves
    assert_allclose(deep, table(depth=6.0, sample_index=1.33, na=1.33 - 1e-9), rtol=0, atol=2e-3 * deep.max())


def widefield(**optics):
    optics = Optics(**optics)
    return optics, INSTRUMENTS["widefield"](BACKEND, optics, beam_of(BACKEND, optics, "vectorial", None))


def test_focal_shift_of_hell_and_others():
    # Hell et al., J. Microsc. 169 (1993): NA 1.3 oil, 514 nm, into water: 1.7 um more for every 10 um, and about 40 %
    # less peak at 20 than at 10 um.  Ratio of the depth where it is found to the true one: oil / water 1.139 paraxial.
    optics, light = widefield(na=1.3, emission_nm=514, immersion_index=1.515, sample_index=1.33)
    found, peak = {}, {}
    for depth in (10.0, 20.0):
        focus = focus_um(BACKEND, optics, light, depth)
        found[depth] = focus + depth * 1.515 / 1.33
        peak[depth] = light.profile(np.zeros(1), 5.0, (depth,))(np.array([focus]), depth).item()
    assert_allclose(found[10.0] / 10, 1.22, atol=0.01)
    assert_allclose((found[20.0] - found[10.0]) / 10, 1.17, rtol=0.02)
    assert_allclose(peak[20.0] / peak[10.0], 0.64, atol=0.03)


@pytest.mark.parametrize("changes", [{"sample_index": 1.33}, {"sample_index": 1.47}, {"coverslip_um_design": 165.0}])
@pytest.mark.parametrize("depth", [0.0, 3.0, 40.0])
def test_focus_is_the_brightest_plane(changes, depth):
    optics, light = widefield(**{**OIL, **changes, "coverslip_index": 1.52})
    focus = focus_um(BACKEND, optics, light, depth)
    wide = np.linspace(-20, 20, 2001)
    values = light.profile(np.zeros(1), 20.0, (depth,))(wide, depth)[:, 0]
    assert abs(wide[values.argmax()] - focus) <= 0.011
    near = focus + np.array([-2e-3, 0.0, 2e-3])
    assert light.profile(np.zeros(1), 20.0, (depth,))(near, depth)[:, 0].argmax() == 1


def test_origins():
    optics, light = widefield(**OIL, sample_index=1.33)
    assert origin_um(BACKEND, optics, light, 10.0, "paraxial") == 0.0
    # nominal focus d with d = 10 lies 10 (n_i / n_s - 1) short of the paraxial one
    assert_allclose(origin_um(BACKEND, optics, light, 10.0, "emitter"), -10 * (1.515 / 1.33 - 1))
    assert origin_um(BACKEND, optics, light, 10.0, "peak") > 0.5
