"""Array in, array out: builds the problem, drives a method's iterations, reports, and checks the result."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gpudecon.backend import Array, Backend, get_backend
from gpudecon.errors import GpudeconWarning, InputError, RunError
from gpudecon.forward import Edges, ForwardModel
from gpudecon.image import checked_voxel_um
from gpudecon.methods import Method, Problem, make_method
from gpudecon.methods.richardson_lucy import FLOOR
from gpudecon.psf.psf import PSF, as_psf
from gpudecon.quality.background import estimate_background


@dataclass(frozen=True)
class Info:
    """What a callback is told beside the estimate.

    ``seconds`` since the start of the iterations, on the host's clock; ``divergence``, the mean I-divergence per voxel
    between image and model (minus the Poisson log-likelihood up to a constant), or None between the strides.
    """

    seconds: float
    divergence: float | None


Callback = Callable[[int, Array, Info], object]


class Deconvolver:
    """A restoration made ready for images of one shape: transfer function, plans and buffers are made once.

    Parameters
    ----------
    shape
        Of the images, (z, y, x) or (y, x).
    psf
        A `PSF`, or a bare array on the image's voxel grid; of any size, odd or even, centred at n // 2.
    method, options
        A name in `METHODS` with its options as keywords, or an instance, which has its options already.
    background
        What the camera shows without light, in the image's units; "auto" estimates it for each image.
    edges
        "extend" (the object goes on beyond the image), "reflect" or "periodic"; see `ForwardModel`.
    device, threads
        "auto", "cpu", "cuda" or "cuda:N"; the number of CPU threads.
    voxel_um
        Size of the image's voxels, (z, y, x) or (y, x).  Where given, a PSF of another pitch is resampled and
        differences are weighed by it; else the PSF's own size is taken for the image's.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        psf: PSF | Array,
        method: str | Method = "rl",
        *,
        background: float | Literal["auto"] = 0.0,
        edges: Edges = "extend",
        device: str = "auto",
        threads: int | None = None,
        voxel_um: tuple[float, ...] | None = None,
        **options: Any,
    ) -> None:
        self.shape = _checked_shape(shape)
        self.method = make_method(method, options)
        self.background = _checked_background(background)
        if voxel_um is not None:
            voxel_um = checked_voxel_um(voxel_um, len(self.shape))
        self.psf = as_psf(psf, len(self.shape), voxel_um)
        self.backend = get_backend(device, threads=threads)
        sizes = voxel_um or self.psf.voxel_um or (1.0,) * len(self.shape)
        self._voxel_um = _three_dimensional(sizes, sizes[0])
        with self.backend.active():
            self._model = ForwardModel(
                self.backend,
                _three_dimensional(self.shape, 1),
                self.psf.array.reshape(_three_dimensional(self.psf.shape, 1)),
                edges,
            )

    def __call__(self, image: Array, callback: Callback | None = None, *, divergence_every: int = 10) -> Array:
        """The restored image: float32, same shape, on the device where the image was.

        ``callback(iteration, estimate, info)`` is called after each iteration, from 1; the estimate is image-shaped, on
        the backend, and valid until the next iteration.  Every ``divergence_every`` iterations (0: never) and at the
        last one `Info.divergence` is computed, which costs one more blur and waits for the device.
        """
        backend = self.backend
        estimate = self._iterate(image, callback, divergence_every)
        return _result(backend, estimate, self._model.image_shape, image)

    def _iterate(self, image: Array, callback: Callback | None, divergence_every: int) -> Array:
        """The last estimate, on the domain."""
        if tuple(image.shape) != self.shape:
            raise InputError(f"The image has shape {tuple(image.shape)}; this Deconvolver was made for {self.shape}.")
        model = self._model
        if _on_some_gpu(image) and not self.backend.owns(image):
            image = image.get()
        with self.backend.active():
            problem = self._problem(image)
            start = time.perf_counter()
            last = getattr(self.method, "iterations", 1)
            for iteration, estimate in enumerate(self.method.iterate(problem), start=1):
                if callback is None:
                    continue
                due = divergence_every > 0 and (iteration % divergence_every == 0 or iteration == last)
                divergence = _divergence(problem, estimate) if due else None
                info = Info(time.perf_counter() - start, divergence)
                callback(iteration, model.crop(estimate).reshape(self.shape), info)
        return estimate

    def _problem(self, image: Array) -> Problem:
        lowest, highest = _checked_range(image)
        background = estimate_background(image) if self.background == "auto" else self.background
        if self.method.counts_only:
            if highest <= max(background, 0.0):
                raise InputError(
                    f"The image's largest value {highest:g} is not above the background {background:g} and 0: nothing "
                    "is left to restore; give counts, and a background below them."
                )
            if lowest < 0:
                negative = int((image < 0).sum())
                warnings.warn(
                    f"{negative} negative voxels (lowest {lowest:g}) were set to 0: counts cannot be negative. If an "
                    "offset was subtracted from the image, add it again and give it as background.",
                    GpudeconWarning,
                    stacklevel=4,
                )
        boxed = image.reshape(_three_dimensional(self.shape, 1))
        if boxed.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
            boxed = boxed.astype(np.float32)  # exact for integers up to 2^24
        data = self.backend.upload(boxed)
        if self.method.counts_only and lowest < 0:
            data = self.backend.xp.maximum(data, 0)
        return Problem(self.backend, self._model, data, background, self._voxel_um, highest)


def deconvolve(
    image: Array,
    psf: PSF | Array,
    method: str | Method = "rl",
    *,
    background: float | Literal["auto"] = 0.0,
    edges: Edges = "extend",
    device: str = "auto",
    threads: int | None = None,
    voxel_um: tuple[float, ...] | None = None,
    callback: Callback | None = None,
    divergence_every: int = 10,
    **options: Any,
) -> Array:
    """Restore one image: see `Deconvolver` for the parameters and `METHODS` for the methods and their options.

    NumPy in, NumPy out; CuPy in, CuPy out.  The image is not changed; the result has its shape, is float32 and in its
    units, neither clipped nor rescaled.

    >>> restored = deconvolve(image, psf, method="rl", iterations=30, background=100.0)    # doctest: +SKIP
    """
    if not _on_some_gpu(image):
        image = np.asarray(image)
    if image.dtype.kind not in "uif":
        raise InputError(f"The image holds {image.dtype}; it must hold real numbers.")
    decon = Deconvolver(
        image.shape,
        psf,
        method,
        background=background,
        edges=edges,
        device=device,
        threads=threads,
        voxel_um=voxel_um,
        **options,
    )
    estimate = decon._iterate(image, callback, divergence_every)
    backend, box = decon.backend, decon._model.image_shape
    del decon  # the result needs room; transfer function, weights and work space are done with
    return _result(backend, estimate, box, image)


def _result(backend: Backend, estimate: Array, box: tuple[int, int, int], image: Array) -> Array:
    """The image's part of the last estimate, checked, in the image's shape and on its device."""
    with backend.active():
        out = backend.xp.empty(box, np.float32)
        backend.ops.store_cropped(out, estimate, 1.0, 0.0)
        if not bool(backend.xp.isfinite(out.sum(dtype=np.float64))):
            raise RunError(
                "The restoration ended in values that are not finite, which is a defect of gpudecon: please report it "
                "with the method, the image's range and the PSF."
            )
        out = out.reshape(image.shape)
        return out if backend.owns(image) else backend.download(out)


def _on_some_gpu(image: Array) -> bool:
    return hasattr(image, "__cuda_array_interface__")


def _divergence(problem: Problem, estimate: Array) -> float:
    """Mean I-divergence between the image and the blurred estimate."""
    model = problem.model
    nz, ny, _ = model.image_shape
    image = problem.image if problem.image.dtype == np.float32 else problem.image.astype(np.float32)
    rows = problem.backend.xp.empty((nz, ny), np.float64)
    work = model.blur(estimate)
    problem.backend.ops.poisson_divergence(rows, work, image, problem.background, FLOOR * problem.highest)
    return float(rows.sum()) / int(image.size)


def _checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(
            f"The image has shape {tuple(shape)}; it must be (z, y, x) or (y, x): loop over channels and time points."
        )
    return tuple(int(n) for n in shape)


def _checked_background(background: float | str) -> float | Literal["auto"]:
    if background == "auto":
        return "auto"
    if isinstance(background, str) or not np.isfinite(background):
        raise InputError(f"background is {background!r}; give a number in the image's units, or 'auto'.")
    return float(background)


def _checked_range(image: Array) -> tuple[float, float]:
    """Lowest and highest value; NaN, infinity and an image of zeros are refused."""
    lowest, highest = float(image.min()), float(image.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        wrong = int(image.size - np.isfinite(image).sum())
        raise InputError(f"The image holds {wrong} NaN or infinite voxels; replace them before restoring.")
    if lowest == highest == 0:
        raise InputError("The image is zero everywhere; there is nothing to restore.")
    return lowest, highest


def _three_dimensional(sizes: tuple[Any, ...], leading: Any) -> tuple[Any, Any, Any]:
    """(y, x) -> (leading, y, x)."""
    return (leading, *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])
