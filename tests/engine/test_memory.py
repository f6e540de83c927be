"""What `restoration_bytes` predicts against what NumPy reports to tracemalloc while `deconvolve` runs."""

import tracemalloc

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.engine.memory import restoration_bytes
from gpudecon.forward import EDGES
from gpudecon.methods import make_method

GIVEN = {"iterations": 2, "alpha": 0.3, "cutoff": 0.03}
CASES = [
    ("rl", {"iterations": 2}),
    ("rl", {"iterations": 2, "acceleration": "shb"}),
    ("rl", {"iterations": 2, "acceleration": "biggs"}),
    ("rl", {"iterations": 2, "tv": 0.01}),
    ("rl", {"iterations": 2, "goods_roughness": 0.01, "acceleration": "shb"}),
    ("rl", {**GIVEN, "back_projector": "omw"}),
    ("rl", {**GIVEN, "back_projector": "wb", "acceleration": "biggs", "tikhonov": 0.01}),
    ("rl", {"iterations": 2, "back_projector": "wb"}),
    ("rl", {"iterations": 2, "start": "lowpass"}),
    ("rl", {"iterations": 2, "start": "wiener"}),
    ("wiener", {}),
    ("wiener", {"noise_to_signal": "spectrum"}),
    ("cls", {}),
    ("cls", {"gamma": "gcv"}),
    ("inverse", {}),
    ("landweber", {"iterations": 2}),
    ("gold", {"iterations": 2}),
    ("ictm", {"iterations": 2}),
    ("fista_tv", {"iterations": 2, "inner_iterations": 2}),
    ("tv", {"weight": 0.001}),
    ("median", {}),
    ("median", {"threshold": 0.0}),
    ("homomorphic", {}),
]


def test_every_method_is_measured():
    assert {name for name, _ in CASES} == set(gd.METHODS)


@pytest.fixture(scope="module")
def scene():
    """A function (shape, PSF's shape) -> (image, Gaussian PSF)."""

    def make(shape, psf_shape):
        image = np.random.default_rng(3).poisson(50, shape).astype(np.float32)
        image[tuple(n // 2 for n in shape)] = 3000
        grid = np.meshgrid(*((np.arange(n) - n // 2) * 5 / n for n in psf_shape), indexing="ij")
        psf = np.exp(-sum(g**2 for g in grid) / 2)
        return image, (psf / psf.sum()).astype(np.float32)

    return make


def peaks(scene, method, shape, psf_shape, edges):
    """(measured, predicted) bytes beside the image; NumPy's arrays only: the FFT library's own are not reported."""
    image, psf = scene(shape, psf_shape)
    psf = psf if method.needs_psf else None
    gd.deconvolve(image[(slice(0, 8),) * image.ndim], psf, method, device="cpu")  # what is imported and kept
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    gd.deconvolve(image, psf, method, edges=edges, device="cpu", threads=1)
    measured = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    backend = get_backend("cpu", threads=1)
    return measured, restoration_bytes(method, shape, None if psf is None else psf_shape, edges, backend)


each_case = pytest.mark.parametrize(
    ("method", "edges"),
    [
        (make_method(name, options), edges)
        for name, options in CASES
        for edges in (EDGES if gd.METHODS[name].needs_psf else EDGES[:1])
    ],
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@each_case
def test_peak_of_a_volume_is_what_is_predicted(scene, method, edges):
    """Fields have 7 to 10 MB.  A few MB of temporary arrays, taken from the greediest operation, are part of the 35 %.

    Measuring the SNR, for an automatic alpha, takes a share that falls with the margin; 60 % there.
    """
    measured, predicted = peaks(scene, method, (48, 192, 192), (11, 17, 19), edges)
    measures_snr = method.name == "rl" and method.back_projector != "matched" and method.alpha == "auto"
    assert measured <= predicted <= (1.6 if measures_snr else 1.35) * measured


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@each_case
def test_peak_of_a_plane_is_below_what_is_predicted(scene, method, edges):
    measured, predicted = peaks(scene, method, (1500, 1400), (41, 51), edges)
    assert measured <= predicted


def test_what_makes_a_restoration_larger():
    backend = get_backend("cpu", threads=1)
    shape, psf = (40, 200, 200), (11, 21, 21)
    plain = restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", backend)
    assert plain > restoration_bytes(gd.RichardsonLucy(), shape, psf, "periodic", backend)
    assert plain < restoration_bytes(gd.RichardsonLucy(acceleration="biggs"), shape, psf, "extend", backend)
    assert plain < restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", get_backend("cpu", threads=2))
    assert plain == restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", backend, np.uint16)
    in_double = restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", backend, np.float64)
    assert in_double == plain + 4 * 40 * 200 * 200
