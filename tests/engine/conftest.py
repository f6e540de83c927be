"""A job of several tiles, channels and time points on a file, and its plan."""

import signal

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.engine.job import Job
from gpudecon.engine.plan import plan_job
from gpudecon.methods import make_method


@pytest.fixture
def series(tmp_path, rng, asymmetric_psf):
    """A time series of two channels (t, c, z, y, x) of odd, unequal lengths in a file, its pixels and a PSF."""
    truth = rng.gamma(0.3, 300, (2, 2, 5, 41, 53))
    counts = rng.poisson(truth + 100).astype(np.uint16)
    channels = (gd.Channel("DAPI"), gd.Channel("GFP"))
    path = tmp_path / "in.ome.zarr"
    gd.write(path, gd.Image(counts, "tczyx", (0.2, 0.1, 0.1), channels, "series", 1.5))
    return path, counts, gd.PSF(asymmetric_psf((3, 5, 7)), (0.2, 0.1, 0.1))


@pytest.fixture
def job(series):
    """A function that makes a job on `series`; keywords replace its fields, iterations are the method's."""

    def make(iterations=3, **fields):
        path, _, psf = series
        image = gd.read(path)
        given = {
            "image": image, "path": str(path), "psfs": (psf,), "method": make_method("rl", {"iterations": iterations}),
            "background": 100.0, "device": "cpu", "threads": 1, "channels": (0, 1), "timepoints": (0, 1),
        }  # fmt: skip
        return Job(**given | fields)

    return make


@pytest.fixture
def planned(job, tmp_path):
    """A function that makes (job, plan) with 2 x 2 tiles per stack; keywords as for `job`."""

    def make(output="out.ome.zarr", *, tile=(5, 32, 32), ngff="0.5", **fields):
        made = job(**fields)
        return made, plan_job(made, tmp_path / output, ngff=ngff, tile=tile)

    return make


@pytest.fixture
def heeding_ctrl_c():
    """Ctrl-C is KeyboardInterrupt, also where a shell has started the tests in the background, ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
