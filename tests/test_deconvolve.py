"""The front door: laws of the result, agreement with independent code, and refusal of bad input."""

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.errors import InputError
from gpudecon.forward import EDGES

SHAPES = [((7, 20, 23), (5, 6, 9)), ((20, 23), (6, 9)), ((3, 16, 15), (7, 21, 5))]


def reference_rl(image, psf, iterations, background=0.0):
    """Periodic Richardson-Lucy in float64, on its own."""
    padded = np.zeros(image.shape)
    for index in np.ndindex(psf.shape):
        padded[tuple((i - p // 2) % n for i, p, n in zip(index, psf.shape, image.shape, strict=True))] += psf[index]
    otf = np.fft.fftn(padded)
    f = np.full(image.shape, image.mean(dtype=float) - background)
    for _ in range(iterations):
        ratio = image / (np.fft.ifftn(np.fft.fftn(f) * otf).real + background)
        f = f * np.fft.ifftn(np.fft.fftn(ratio) * otf.conj()).real
    return f


@pytest.mark.parametrize(("shape", "psf_shape"), SHAPES)
@pytest.mark.parametrize("background", [0.0, 3.5])
def test_periodic_rl_is_the_float64_reference(asymmetric_psf, rng, shape, psf_shape, background):
    image = (rng.random(shape) * 50 + 10).astype(np.float32)
    psf = asymmetric_psf(psf_shape)
    restored = gd.deconvolve(image, psf, iterations=10, edges="periodic", background=background, device="cpu")
    expected = reference_rl(image, psf, 10, background)
    assert restored.dtype == np.float32
    assert restored.shape == shape
    assert np.abs(restored - expected).max() <= 1e-4 * expected.max()


def test_rl_is_scikit_image_where_both_are_the_same_mathematics(asymmetric_psf):
    """2-D, specimen further from the edges than the PSF reaches, so that edges play no part.

    scikit-image mirrors the PSF about its middle, (n - 1) / 2, so the PSF has odd sizes.
    """
    restoration = pytest.importorskip("skimage.restoration", reason="scikit-image is not installed")
    truth = np.zeros((61, 75))
    truth[28:33, 30:36] = 1.0
    truth[25, 44] = 20.0
    psf = asymmetric_psf((7, 9)).astype(float)
    psf /= psf.sum()
    image = ndimage.convolve(truth, psf, mode="constant")
    expected = restoration.richardson_lucy(image, psf, num_iter=10, clip=False)
    restored = gd.deconvolve(image, psf.astype(np.float32), iterations=10, device="cpu")
    assert np.abs(restored - expected).max() <= 1e-4 * expected.max()


def test_half_an_object_outside_leaves_the_opposite_face_alone(asymmetric_psf):
    """A bright ball cut by the face z = 0 and x = 0: extended edges explain it, periodic ones print it opposite."""
    z, y, x = np.ogrid[-8:24, -20:28, -20:28]
    whole = (((z - 0) / 4) ** 2 + ((y - 4) / 8) ** 2 + ((x - 0) / 8) ** 2 < 1) * 1000.0 + 10.0
    psf = asymmetric_psf((9, 11, 11))
    image = ndimage.convolve(whole, psf, mode="nearest")[8:, 20:, 20:].astype(np.float32)
    opposite = (slice(-4, None), slice(None), slice(None))

    def disturbance(edges):
        restored = gd.deconvolve(image, psf, iterations=50, edges=edges, device="cpu")
        return float(np.abs(restored[opposite] - 10).max())

    extended, periodic = disturbance("extend"), disturbance("periodic")
    assert extended < 1.0, "10 % of the background"
    assert periodic > 10 * extended


@pytest.mark.parametrize("edges", EDGES)
def test_background_is_explained_not_subtracted(scene, edges):
    image, psf = scene((15, 40, 41), (5, 6, 9))
    outside = (slice(None), slice(0, 8), slice(None))
    explained = gd.deconvolve(image + 40, psf, iterations=100, edges=edges, background=40, device="cpu")
    ignored = gd.deconvolve(image + 40, psf, iterations=100, edges=edges, device="cpu")
    assert np.median(ignored[outside]) == pytest.approx(40, rel=0.05)
    assert np.median(explained[outside]) < 0.4, "1 % of the background"
    assert explained.min() >= 0
    assert explained.max() == pytest.approx(ignored.max(), rel=0.1)


@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.5])
def test_a_background_near_the_mean_does_not_extinguish_a_sparse_specimen(asymmetric_psf, rng, offset):
    """Nearly all light is background: the start must not fall to nothing where the mean does not exceed it."""
    truth = np.zeros((12, 40, 40))
    truth[6, 20, 20] = 3000
    psf = asymmetric_psf((5, 7, 7))
    image = rng.poisson(ndimage.convolve(truth, psf, mode="constant") + 100).astype(np.float32)
    background = float(image.mean()) + offset
    restored = gd.deconvolve(image, psf, iterations=30, background=background, device="cpu")
    assert restored[4:9, 17:24, 17:24].sum() > 2000


def test_wiener_auto_keeps_the_mean_and_says_when_noise_cannot_be_measured(rng):
    image = rng.poisson(np.full((12, 24, 24), 10.0)).astype(np.float32)
    with pytest.warns(gd.GpudeconWarning, match="passes every frequency"):
        restored = gd.deconvolve(image, np.ones((1, 1, 1), np.float32), "wiener", device="cpu")
    assert restored.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-3)
    assert restored.std() == pytest.approx(image.std(), rel=0.02), "noise is not known, so little may be smoothed"


def test_one_deconvolver_serves_several_threads(scene):
    image, psf = scene(*SHAPES[0])
    decon = gd.Deconvolver(image.shape, psf, iterations=10, device="cpu", threads=2)
    expected = decon(image)
    with ThreadPoolExecutor(4) as pool:
        for restored in pool.map(lambda _: decon(image), range(12)):
            assert (restored == expected).all()


def test_deconvolver_refuses_what_deconvolve_refuses(scene):
    image, psf = scene(*SHAPES[0])
    decon = gd.Deconvolver(image.shape, psf, iterations=np.int64(2), device="cpu")
    assert (decon(image.tolist()) == decon(image)).all()
    with pytest.raises(InputError, match="complex128"):
        decon(image.astype(complex))
    with pytest.raises(InputError, match="masked array"):
        decon(np.ma.masked_less(image, 3))


def test_deconvolver_is_reusable(scene, rng):
    image, psf = scene(*SHAPES[0])
    decon = gd.Deconvolver(image.shape, psf, iterations=5, acceleration="shb", device="cpu")
    first, second = decon(image), decon(image)
    other = decon(image + rng.random(image.shape).astype(np.float32))
    assert (first == second).all()
    assert (other != first).any()
    assert (first == gd.deconvolve(image, psf, iterations=5, acceleration="shb", device="cpu")).all()
    with pytest.raises(InputError, match=r"\(3, 3, 3\).*made for \(7, 20, 23\)"):
        decon(np.ones((3, 3, 3), np.float32))


def test_callback_sees_every_iteration_and_the_divergence_falls(scene):
    image, psf = scene(*SHAPES[0])
    seen = []

    def callback(iteration, estimate, info):
        assert estimate.shape == image.shape
        seen.append((iteration, float(estimate.sum()), info.seconds, info.divergence))

    restored = gd.deconvolve(image, psf, iterations=12, device="cpu", callback=callback, divergence_every=5)
    assert [s[0] for s in seen] == list(range(1, 13))
    assert [s[0] for s in seen if s[3] is not None] == [5, 10, 12]
    divergences = [s[3] for s in seen if s[3] is not None]
    assert divergences == sorted(divergences, reverse=True)
    assert all(a[2] <= b[2] for a, b in itertools.pairwise(seen))
    assert seen[-1][1] == pytest.approx(float(restored.sum()))


def test_divergence_is_that_of_the_reported_estimate(asymmetric_psf, rng):
    from scipy.special import kl_div

    image = (rng.random((6, 9, 8)) * 20 + 5).astype(np.float32)
    psf = asymmetric_psf((3, 3, 4))
    reported = []
    gd.deconvolve(
        image, psf, iterations=4, edges="periodic", background=2.0, device="cpu",
        callback=lambda k, estimate, info: reported.append((estimate.copy(), info.divergence)),
    )  # fmt: skip
    estimate, divergence = reported[-1]
    model = sum(
        float(psf[i])
        * np.roll(estimate.astype(float), [a - p // 2 for a, p in zip(i, psf.shape, strict=True)], (0, 1, 2))
        for i in np.ndindex(psf.shape)
    )
    assert divergence == pytest.approx(kl_div(image, model + 2.0).mean(), rel=1e-4)


def test_psf_sum_and_pitch_are_repaired_with_a_warning(scene):
    image, psf = scene(*SHAPES[0])
    expected = gd.deconvolve(image, psf, iterations=3, device="cpu")
    with pytest.warns(gd.GpudeconWarning, match=r"summed to 17"):
        restored = gd.deconvolve(image, psf * 17, iterations=3, device="cpu")
    np.testing.assert_allclose(restored, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
    coarse = gd.PSF(psf, (0.3, 0.1, 0.1))
    with pytest.warns(gd.GpudeconWarning, match=r"resampled to the image's"):
        gd.deconvolve(image, coarse, iterations=2, device="cpu", voxel_um=(0.2, 0.1, 0.1))


def test_negative_voxels_are_set_to_zero_with_a_warning(scene):
    image, psf = scene(*SHAPES[0])
    image[0, 0, :3] = -5
    with pytest.warns(gd.GpudeconWarning, match=r"3 negative voxels \(lowest -5\)"):
        restored = gd.deconvolve(image, psf, iterations=3, device="cpu")
    assert np.isfinite(restored).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gd.deconvolve(image, psf, "wiener", device="cpu")  # a linear filter takes them as they are


def bad(image=None, psf=None, **kwargs):
    good = np.ones((4, 8, 9), np.float32)
    image = good if image is None else image
    psf = np.full((3, 3, 3), 1 / 27, np.float32) if psf is None else psf
    return gd.deconvolve(image, psf, device=kwargs.pop("device", "cpu"), **kwargs)


def with_value(value):
    image = np.ones((4, 8, 9), np.float32)
    image[1, 2, 3] = value
    return image


BAD = {
    "nan": ({"image": with_value(np.nan)}, "1 NaN or infinite"),
    "inf": ({"image": with_value(np.inf)}, "1 NaN or infinite"),
    "zero": ({"image": np.zeros((4, 8, 9))}, "zero everywhere"),
    "complex": ({"image": np.ones((4, 8, 9), complex)}, "complex128"),
    "bool": ({"image": np.ones((4, 8, 9), bool)}, "bool"),
    "4-D": ({"image": np.ones((2, 4, 8, 9))}, r"\(2, 4, 8, 9\).*loop over channels"),
    "empty": ({"image": np.ones((0, 8, 9))}, r"\(0, 8, 9\)"),
    "psf nan": ({"psf": np.full((3, 3, 3), np.nan)}, "27 NaN"),
    "psf zero": ({"psf": np.zeros((3, 3, 3))}, "zero everywhere"),
    "psf negative": ({"psf": np.array([[[1.0, -0.5, 1.0]]])}, "negative"),
    "psf 2-D": ({"psf": np.ones((3, 3)) / 9}, r"2 dimensions.*image has 3"),
    "method": ({"method": "lucy"}, "'lucy'; known are rl, wiener, cls"),
    "option": ({"iteration": 3}, "no option iteration; its options are iterations, acceleration"),
    "iterations": ({"iterations": 0}, "iterations is 0"),
    "float iterations": ({"iterations": 2.5}, "iterations is 2.5; it must be a whole number"),
    "acceleration": ({"acceleration": "fast"}, "'fast'; it must be 'none' or 'shb'"),
    "noise": ({"method": "wiener", "noise_to_signal": -1.0}, "noise_to_signal is -1"),
    "gamma": ({"method": "cls", "gamma": "car"}, "gamma is 'car'; it must be 'auto' or 'gcv' or a number"),
    "edges": ({"edges": "wrap"}, "'wrap'"),
    "background": ({"background": float("nan")}, "background is nan"),
    "all negative": ({"image": np.full((4, 8, 9), -3.0), "background": -9.0}, "not above the background -9 and 0"),
    "background too high": ({"background": 2.0}, "not above the background"),
    "background list": ({"background": [1.0]}, "give a number in the image's units"),
    "too large": ({"image": np.full((4, 8, 9), 1e35)}, "reach 1e\\+35"),
    "voxel": ({"voxel_um": 0.1}, r"voxel_um is 0.1; give 3 positive"),
    "voxel zero": ({"voxel_um": (0.0, 1.0, 1.0)}, "give 3 positive"),
    "device": ({"device": "gpu"}, "Unknown device 'gpu'"),
    "threads": ({"threads": 0}, "threads is 0"),
    "instance and option": ({"method": gd.RichardsonLucy(), "iterations": 3}, "set iterations when you make it"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        bad(**arguments)


def test_cuda_without_a_gpu_names_what_is_missing():
    from gpudecon.backend.cupy import missing_for_cuda

    if missing_for_cuda() is None:
        pytest.skip("there is a GPU here")
    with pytest.raises(gd.GpudeconError, match=r"cuda was asked for, but .*use the CPU with device 'cpu'"):
        bad(device="cuda")


@pytest.mark.gpu
def test_cupy_in_cupy_out(scene):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no GPU")
    image, psf = scene(*SHAPES[0])
    restored = gd.deconvolve(cupy.asarray(image), psf, iterations=3, device="cuda")
    assert isinstance(restored, cupy.ndarray)
    np.testing.assert_allclose(restored.get(), gd.deconvolve(image, psf, iterations=3, device="cuda"))
