"""What `restoration_bytes` predicts against what NumPy reports to tracemalloc while `deconvolve` runs."""

import gc
import importlib.util
import math
import sys
import tracemalloc

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.backend.numpy import NumpyBackend
from gpudecon.backend.slabs import SLAB_BYTES
from gpudecon.engine.memory import restoration_buffers, restoration_bytes
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


def peaks(scene, method, shape, psf_shape, edges, dtype=np.float32, fft="auto", stop="fixed", callback=None):
    """(measured, predicted) bytes beside the image.

    NumPy's arrays: what FFT libraries allocate beside them is a line of samples for each thread.
    """
    image, psf = scene(shape, psf_shape)
    image, psf = image.astype(dtype), psf if method.needs_psf else None
    backend = NumpyBackend(1, fft)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["gpudecon.deconvolve"], "get_backend", lambda *_, **__: backend)
        gd.deconvolve(image[(slice(0, 8),) * image.ndim], psf, method, stop=stop)  # what is imported and kept
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        gd.deconvolve(image, psf, method, edges=edges, stop=stop, callback=callback)
        measured = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    kernel = None if psf is None else psf_shape
    buffers = restoration_buffers(method, shape, kernel, edges, backend, dtype, held_out=stop == "auto")
    return measured, sum(buffers.values())


METHODS_AND_EDGES = [
    (make_method(name, options), edges)
    for name, options in CASES
    for edges in (EDGES if gd.METHODS[name].needs_psf else EDGES[:1])
]
LIBRARIES = ["scipy", "ducc0"] if importlib.util.find_spec("ducc0") else ["scipy"]
KINDS = [(np.float32, LIBRARIES[0]), (np.uint16, LIBRARIES[-1]), (np.float32, LIBRARIES[-1]), (np.uint16, LIBRARIES[0])]


VOLUME, PSF_SHAPE = (44, 160, 160), (11, 17, 19)  # large enough for what does not grow with it to be below 10 %


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@pytest.mark.parametrize(
    ("method", "edges", "dtype", "fft"),
    [(*case, *KINDS[i % len(KINDS)]) for i, case in enumerate(METHODS_AND_EDGES)],  # all of them: bench/memory.py
)
def test_peak_of_a_volume_is_what_is_predicted(scene, method, edges, dtype, fft):
    measured, predicted = peaks(scene, method, VOLUME, PSF_SHAPE, edges, dtype, fft)
    assert measured <= predicted <= 1.1 * measured


@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@pytest.mark.parametrize("options", [{"acceleration": "shb"}, {"acceleration": "biggs"}, {"goods_roughness": 0.01}])
def test_peak_of_a_volume_that_is_one_slab(scene, options):
    shape = (32, 128, 128)
    assert 4 * math.prod(shape) == SLAB_BYTES
    measured, predicted = peaks(scene, gd.RichardsonLucy(2, **options), shape, PSF_SHAPE, "periodic")
    assert measured <= predicted <= 1.1 * measured


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@pytest.mark.parametrize(
    ("edges", "acceleration"), [("extend", "none"), ("extend", "biggs"), ("reflect", "shb"), ("periodic", "none")]
)
def test_peak_of_choosing_the_number_of_iterations(scene, edges, acceleration):
    method = gd.RichardsonLucy(iterations=3, acceleration=acceleration)
    measured, predicted = peaks(scene, method, VOLUME, PSF_SHAPE, edges, np.uint16, stop="auto")
    assert measured <= predicted <= 1.1 * measured


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gpudecon.GpudeconWarning")
@pytest.mark.parametrize(("method", "edges"), METHODS_AND_EDGES[::4])
def test_peak_of_a_plane_is_below_what_is_predicted(scene, method, edges):
    measured, predicted = peaks(scene, method, (900, 840), (41, 51), edges)
    assert measured <= predicted


def test_what_makes_a_restoration_larger():
    backend = get_backend("cpu", threads=1)
    shape, psf = (40, 200, 200), (11, 21, 21)
    plain = restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", backend)
    assert plain > restoration_bytes(gd.RichardsonLucy(), shape, psf, "periodic", backend)
    assert plain < restoration_bytes(gd.RichardsonLucy(acceleration="biggs"), shape, psf, "extend", backend)
    assert plain < restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", get_backend("cpu", threads=2))
    in_double = restoration_bytes(gd.RichardsonLucy(), shape, psf, "extend", backend, np.float64)
    assert in_double == plain + 4 * 40 * 200 * 200


def test_looks_at_the_divergence_take_no_copy_of_the_image(scene):
    plain, watched = (
        peaks(scene, gd.RichardsonLucy(2), VOLUME, PSF_SHAPE, "extend", np.uint16, callback=callback)[0]
        for callback in (None, lambda *_: None)
    )
    assert watched < plain + 1.5 * math.prod(VOLUME)  # a float32 copy has four times as many bytes


class Gpu:
    """What is asked of a GPU's backend."""

    padded_shape = staticmethod(NumpyBackend(1).padded_shape)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_a_gpu_makes_planes_in_double_precision_too(method, options):
    """Of a 2-D image these are all of it: at least the 14 half planes for automatic constants and 4 for filters."""
    made = make_method(method, options)
    shape, psf = (3000, 2000), (31, 31) if gd.METHODS[method].needs_psf else None
    buffers = restoration_buffers(made, shape, psf, "extend", Gpu(), np.uint16)
    temporary = sum(size for name, size in buffers.items() if name in ("statistics", "temporary arrays"))
    if made.name in ("wiener", "cls"):
        assert temporary >= 14 * 4 * math.prod(shape)
    elif made.name in ("inverse", "median", "homomorphic"):
        assert temporary >= 4 * 4 * math.prod(shape)
    part = restoration_buffers(made, shape, psf, "extend", Gpu(), np.uint16, part=True)
    assert sum(part.values()) <= sum(buffers.values())
