"""Independent programs give the same PSFs, where their known faults do not stand in the way.

    pip install 'gpudecon[oracles]'

psf-generator 0.1 places samples on linspace(-N p / 2, N p / 2, N), a pitch of p N / (N - 1), which is compensated here;
its Gibson-Lanni mode uses another NA and is left out.  psfmodels 0.3.3 is right for odd sizes; it interpolates linearly
on a radial grid of pixel / sf, 4e-4 of the peak at sf = 9, and averages pixels over sf x sf points.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpudecon.optics import Optics
from gpudecon.psf.theory import theoretical_psf, theoretical_psfs

OIL = Optics(na=1.4, emission_nm=520, immersion_index=1.515)
INSTALL = "is not installed: pip install 'gpudecon[oracles]'"


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
@pytest.mark.parametrize(("sample_index", "na", "depth"), [(1.515, 1.4, 0.0), (1.33, 1.3, 2.0), (1.38, 1.3, 10.0)])
def test_psfmodels(model, sample_index, na, depth):
    psfmodels = pytest.importorskip("psfmodels", reason=f"psfmodels {INSTALL}")
    n, z = 33, (np.arange(11) - 5) * 0.3
    parameters = {"NA": na, "ni": 1.515, "ni0": 1.515, "ng": 1.515, "ng0": 1.515, "ns": sample_index, "sf": 9}
    make = getattr(psfmodels, f"{model}_psf")
    expected = make(depth + z, nx=n, dxy=0.065, pz=depth, wvl=0.52, params=parameters)
    optics = Optics(na=na, emission_nm=520, immersion_index=1.515, sample_index=sample_index)
    (found,) = theoretical_psfs(optics, [depth], (11, n, n), (0.3, 0.065, 0.065), model=model, axial_origin="paraxial")
    assert_allclose(found.array / found.array.max(), expected / expected.max(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "apodization", "options"),
    [
        ("scalar", "uniform", {"cos_factor": True}),
        ("scalar", "aplanatic", {"apod_factor": True}),
        ("vectorial", None, {"apod_factor": True}),
    ],
)
def test_psf_generator(model, apodization, options):
    reason = f"psf-generator (and torch) {INSTALL}"
    propagators = pytest.importorskip("psf_generator.propagators", reason=reason)
    n, planes, pixel, step = 33, 5, 65.0, 100.0
    make = getattr(propagators, f"{model.capitalize()}SphericalPropagator")
    common = {
        "n_pix_pupil": 1025,
        "n_pix_psf": n,
        "wavelength": 520,
        "na": 1.4,
        "n_i": 1.515,
        "n_i0": 1.515,
        "pix_size": pixel * (n - 1) / n,
        "defocus_step": step * (planes - 1) / planes,
        "n_defocus": planes,
        **options,
    }
    # light of both polarisations, as from dipoles that turn freely
    polarised = [{"e0x": 1.0, "e0y": 0.0}, {"e0x": 0.0, "e0y": 1.0}] if model == "vectorial" else [{}]
    expected = 0
    for polarisation in polarised:
        field = make(**common, **polarisation).compute_focus_field().numpy()
        expected = expected + (np.abs(field) ** 2).sum(axis=1)
    voxel = (step * 1e-3, pixel * 1e-3, pixel * 1e-3)
    found = theoretical_psf(
        OIL, (planes, n, n), voxel, model=model, apodization=apodization, pixel_integration=False
    ).array
    assert_allclose(found / found.max(), expected / expected.max(), rtol=0, atol=1e-5)
