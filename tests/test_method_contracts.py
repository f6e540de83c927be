"""What every method in `METHODS` keeps to, whatever it does."""

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.forward import EDGES
from gpudecon.quality.metrics import nrmse
from gpudecon.recording import problem_of
from gpudecon.simulate import phantom

SHAPES = [((7, 20, 23), (5, 6, 9)), ((20, 23), (6, 9)), ((3, 16, 15), (7, 21, 5))]

# Options that change what a result may be, beside the defaults.
OPTIONS = {
    "rl": [
        {"acceleration": "shb", "start": "image"},
        {"acceleration": "biggs", "back_projector": "wb", "alpha": 0.05},
        {"back_projector": "omw", "tv": 0.05},
        {"goods_roughness": 0.05, "start": "wiener"},
    ],
    "gold": [{"iterations": 3}],
    "fista_tv": [{"weight": 0.05}],
    "tv": [{"weight": 0.05}],
    "homomorphic": [{"low_gain": 0.0}],
}


# Forms of Richardson-Lucy that have code of their own, for contracts that say nothing about what they find.
FORMS = [
    {"acceleration": "shb"},
    {"acceleration": "biggs"},
    {"back_projector": "wb"},
    {"back_projector": "omw", "acceleration": "shb"},
    {"tv": 0.05},
    {"goods_roughness": 0.05},
    {"tikhonov": 0.05},
    {"start": "wiener"},
]
EVERY = [*((name, {}) for name in gd.METHODS), *(("rl", {"iterations": 10, **form}) for form in FORMS)]


def needed(psf, method):
    """The PSF, or None for methods that need none."""
    return psf if gd.METHODS[method].needs_psf else None


@pytest.mark.parametrize(("method", "options"), EVERY)
@pytest.mark.parametrize("edges", EDGES)
def test_scale_equivariance(scene, method, options, edges):
    image, psf = scene(*SHAPES[0])
    psf = needed(psf, method)
    once = gd.deconvolve(image, psf, method, edges=edges, device="cpu", **options)
    thousand = gd.deconvolve(image * 1000, psf, method, edges=edges, device="cpu", **options)
    # rounding is not the same by a factor that is no power of two, and conjugate directions remember it
    np.testing.assert_allclose(thousand, once * 1000, atol=1e-4 * float(np.abs(thousand).max()), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:The stack has 3 planes")
@pytest.mark.parametrize(("method", "options"), EVERY)
@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
def test_contract_of_every_method(scene, method, options, shape, psf_shape):
    image, psf = scene(shape, psf_shape)
    psf = needed(psf, method)
    kept, kept_psf = image.copy(), None if psf is None else psf.copy()
    plain = gd.deconvolve(image, psf, method, device="cpu", **options)
    assert plain.shape == shape
    assert plain.dtype == np.float32
    assert np.isfinite(plain).all()
    assert (image == kept).all(), "the input was changed"
    assert psf is None or (psf == kept_psf).all(), "the PSF was changed"
    for other in (np.asfortranarray(image), np.repeat(image, 2, axis=-1)[..., ::2], image.astype(np.uint16)):
        assert (gd.deconvolve(other, psf, method, device="cpu", **options) == plain).all()
    in_double = gd.deconvolve(image.astype(float), psf, method, device="cpu", threads=1, **options)
    assert (in_double == plain).all(), "the number of threads or float64 input changed the result"


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("method", [name for name in gd.METHODS if gd.METHODS[name].needs_psf])
@pytest.mark.parametrize("shape", [(9, 20, 21), (10, 21, 20)])
def test_delta_psf_keeps_the_image(rng, edges, method, shape):
    image = rng.integers(50, 150, shape).astype(np.float32)
    delta = np.zeros((3, 4, 5), np.float32)
    delta[1, 2, 2] = 1
    options = {
        "wiener": {"noise_to_signal": 1e-6},
        "cls": {"gamma": 1e-6},
        "inverse": {},
        "landweber": {"iterations": 3, "step": 1.0},
        "ictm": {"iterations": 3, "gamma": 1e-6},
        "fista_tv": {"iterations": 3, "weight": 1e-6},
        "tv": {"weight": 1e-6},
    }.get(method, {"iterations": 3})
    restored = gd.deconvolve(image, needed(delta, method), method, edges=edges, device="cpu", **options)
    np.testing.assert_allclose(restored, image, rtol=2e-4)


@pytest.mark.parametrize(("method", "options"), EVERY)
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e18])
def test_extreme_units(scene, method, options, scale):
    image, psf = scene(*SHAPES[0])
    psf = needed(psf, method)
    expected = gd.deconvolve(image, psf, method, device="cpu", **options)
    restored = gd.deconvolve(image * np.float32(scale), psf, method, device="cpu", **options) / np.float32(scale)
    np.testing.assert_allclose(restored, expected, atol=2e-3 * float(np.abs(expected).max()))


@pytest.mark.parametrize(("method", "options"), EVERY)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]])
def test_estimates_are_laid_out_as_fields(scene, method, options, shape):
    """The GPU's transforms, which the driver blurs an estimate with, take a pointer and padded rows for granted."""
    image, psf = scene(*shape)
    decon = gd.Deconvolver(image.shape, needed(psf, method), method, device="cpu", threads=1, **options)
    problem = problem_of(image, None, decon.conditions, decon.method, decon._model, (1.0, 1.0, 1.0))
    estimate, field = next(iter(decon.method.iterate(problem))), decon._model.empty()
    assert (estimate.shape, estimate.strides, estimate.dtype) == (field.shape, field.strides, field.dtype)


@pytest.mark.parametrize("method", list(gd.METHODS))
def test_being_watched_changes_nothing(scene, method):
    image, psf = scene(*SHAPES[0])
    psf = needed(psf, method)
    seen = []
    watched = gd.deconvolve(
        image, psf, method, device="cpu", divergence_every=1, callback=lambda k, f, info: seen.append(info.divergence)
    )
    assert (watched == gd.deconvolve(image, psf, method, device="cpu")).all()
    assert np.isfinite(seen).all()


def promised(promise):
    """(method, options) of all methods that promise this."""
    kept = [name for name, method in gd.METHODS.items() if promise in method.promises]
    return [(name, options) for name in kept for options in ({}, *OPTIONS.get(name, []))]


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("method", "options"), promised("non-negative"))
def test_non_negative_where_promised(scene, rng, method, options, edges):
    image, psf = scene(*SHAPES[0])
    image += rng.poisson(3, image.shape)
    restored = gd.deconvolve(image, needed(psf, method), method, background=5.0, edges=edges, device="cpu", **options)
    assert restored.min() >= 0


@pytest.mark.parametrize(("method", "options"), promised("flux"))
def test_flux_is_kept_where_promised(scene, rng, method, options):
    image, psf = scene(*SHAPES[0])
    image += rng.poisson(30, image.shape)
    restored = gd.deconvolve(image, needed(psf, method), method, background=5.0, device="cpu", **options)
    assert restored.sum(dtype=float) == pytest.approx((image - 5.0).sum(dtype=float), rel=1e-4)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("acceleration", ["none", "shb", "biggs"])
def test_plain_and_accelerated_rl_keep_the_flux_when_edges_are_far(scene, edges, acceleration):
    image, psf = scene((15, 40, 41), (5, 6, 9))
    restored = gd.deconvolve(image, psf, iterations=25, edges=edges, acceleration=acceleration, device="cpu")
    assert restored.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-3)
    assert restored.min() >= 0


@pytest.fixture(scope="module")
def filaments():
    """(image, truth, PSF): thin filaments, 20 photons at the brightest, opposite faces touching."""
    truth = phantom("filaments", (16, 48, 48), (0.2, 0.1, 0.1), seed=3).astype(float)
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (11, 13, 13)), indexing="ij")
    psf = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (1.6, 1.5, 1.5), strict=True)) / 2)
    psf = (psf / psf.sum()).astype(np.float32)
    placed = np.zeros(truth.shape)
    placed[:11, :13, :13] = psf
    placed = np.roll(placed, (-5, -6, -6), (0, 1, 2))
    blurred = np.maximum(np.fft.ifftn(np.fft.fftn(truth) * np.fft.fftn(placed)).real, 0)
    image = np.random.default_rng(7).poisson(blurred * (20 / blurred.max())).astype(np.float32)
    return image, truth, psf


@pytest.mark.parametrize("method", list(gd.METHODS))
def test_the_result_is_nearer_to_the_truth_than_the_image(filaments, method):
    """With default options.  Median and homomorphic filter mend what this image has not, outliers and shading: the
    first must leave it as good as it was; the second, which takes the specimen's own unevenness for shading, is not
    asked (tests/methods/test_homomorphic.py).
    """
    if method == "homomorphic":
        pytest.skip("flattens illumination; does not restore")
    image, truth, psf = filaments
    restored = gd.deconvolve(
        image, needed(psf, method), method, edges="periodic", voxel_um=(0.2, 0.1, 0.1), device="cpu"
    )
    best = {"median": 1.001, "tv": 0.99}.get(method, 0.95)
    assert nrmse(restored, truth) < best * nrmse(image, truth)


@pytest.mark.filterwarnings("ignore:The stack has 3 planes", "ignore:Too little of the image stands out")
@pytest.mark.gpu
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rl", {}), ("rl", {"acceleration": "shb"}), ("rl", {"acceleration": "biggs"}),
        ("rl", {"back_projector": "wb", "alpha": 0.5}), ("rl", {"back_projector": "omw", "alpha": 0.5}),
        ("rl", {"tv": 0.01}), ("rl", {"goods_roughness": 0.01}), ("rl", {"tikhonov": 0.01}),
        ("inverse", {}), ("inverse", {"below": "zero"}),
        ("wiener", {"noise_to_signal": 0.01}), ("wiener", {"noise_to_signal": "spectrum"}),
        ("cls", {"gamma": 0.01}), ("cls", {"gamma": "gcv"}), ("landweber", {}), ("gold", {}),
        # conjugate directions that are cut off at 0 multiply rounding errors: three iterations
        ("ictm", {"gamma": 0.01, "iterations": 3}), ("fista_tv", {"weight": 0.01}), ("tv", {"weight": 0.01}),
        ("median", {}), ("median", {"threshold": 0.0}), ("homomorphic", {}),
    ],
)  # fmt: skip
def test_cuda_and_cpu_agree(scene, edges, shape, psf_shape, method, options):
    from gpudecon.backend.cupy import missing_for_cuda

    if missing_for_cuda() is not None:
        pytest.skip(f"no GPU: {missing_for_cuda()}")
    image, psf = scene(shape, psf_shape)
    psf = needed(psf, method)
    if "iterations" in set(gd.METHODS[method].__dataclass_fields__):
        options = {"iterations": 10, **options}
    cpu = gd.deconvolve(image, psf, method, edges=edges, device="cpu", **options)
    cuda = gd.deconvolve(image, psf, method, edges=edges, device="cuda", **options)
    # ten iterations of two transforms each, every one with an error of a few eps log2(N) of the largest value
    assert np.abs(cpu - cuda).max() <= 1e-4 * np.abs(cpu).max()
