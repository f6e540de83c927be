"""The simulated specimen and camera obey their statistics."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.simulate import expose, record, specimen


def test_specimen_is_reproducible_and_depends_on_the_seed():
    arguments = ((12, 40, 41), (0.2, 0.1, 0.1))
    first = specimen(*arguments, seed=3)
    assert (first == specimen(*arguments, seed=3)).all()
    assert (first != specimen(*arguments, seed=4)).any()
    assert first.dtype == np.float32
    assert 0 <= first.min() < 0.01
    assert 0.2 < first.max() <= 1


def test_camera_has_the_mean_and_variance_of_its_model(rng):
    """grey = offset + gain (Poisson(p) + N(0, r^2)): mean o + g p, variance g^2 (p + r^2) + 1/12 of rounding."""
    camera = Camera(offset=100, gain=2.5, read_noise=3.0)
    for photons in (0.0, 5.0, 300.0):
        grey = record(np.full(400_000, photons), camera, rng).astype(float)
        variance = 2.5**2 * (photons + 9) + 1 / 12
        assert grey.mean() == pytest.approx(100 + 2.5 * photons, abs=5 * np.sqrt(variance / 4e5))
        assert grey.var() == pytest.approx(variance, rel=0.02)


def test_exposure_has_the_wanted_peak_and_saturation_is_refused():
    truth = specimen((12, 40, 41), (0.2, 0.1, 0.1), seed=3)
    psf = gd.theoretical_psf(
        gd.Optics(na=1.2, emission_nm=520, immersion_index=1.33), (7, 9, 9), (0.2, 0.1, 0.1), model="gaussian"
    )
    settings = {"psf": psf, "haze_photons": 0.0, "seed": 1}
    grey, per_unit = expose(truth, peak_photons=10_000, camera=Camera(offset=0, gain=1, read_noise=0), **settings)
    assert float(grey.max()) == pytest.approx(10_000, rel=0.05)
    assert grey.sum(dtype=float) == pytest.approx(truth.sum(dtype=float) * per_unit, rel=0.01)
    with pytest.raises(InputError, match="saturates"):
        expose(truth, peak_photons=1e6, camera=Camera(100, 2.0, 1.5), **settings)
    with pytest.raises(InputError, match="dark everywhere"):
        expose(0 * truth, peak_photons=100, camera=Camera(100, 2.0, 1.5), **settings)
