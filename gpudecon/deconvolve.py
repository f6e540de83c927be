"""Array in, array out: builds the problem, drives a method's iterations, stops, reports, and checks the result."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gpudecon.arguments import check_stop, checked_psf, checked_shape, three_dimensional
from gpudecon.backend import Array, Backend, get_backend
from gpudecon.camera import Camera
from gpudecon.constants import Constants
from gpudecon.errors import GpudeconWarning, InputError, RunError
from gpudecon.forward import Edges, ForwardModel, Unblurred
from gpudecon.halo import check_divisible, halo
from gpudecon.image import checked_voxel_um
from gpudecon.lazy import blockwise, check_lazy, is_lazy
from gpudecon.methods import METHODS, Method, Problem, make_method
from gpudecon.methods.problem import FLOOR, settled
from gpudecon.methods.record import Record
from gpudecon.pilot import Box, Place, pilot_regions, survey
from gpudecon.psf.psf import PSF, as_psf
from gpudecon.quality.psf_width import TooWide, too_wide
from gpudecon.quality.residual import unexplained
from gpudecon.quality.stopping import Choice, HoldOut, RelativeChange
from gpudecon.recording import Background, Conditions, checked_image, problem_of

Stop = Literal["fixed", "auto"] | RelativeChange | HoldOut


@dataclass(frozen=True)
class Info:
    """What a callback is told beside the estimate.

    ``seconds`` since the start of the iterations, on the host's clock; ``divergence``, the mean I-divergence per voxel
    between image and model (minus the Poisson log-likelihood up to a constant), or None between the strides;
    ``choice``, what the stop rule "auto" chose and from what, or None for other rules.
    """

    seconds: float
    divergence: float | None
    choice: Choice | None = None


Callback = Callable[[int, Array, Info], object]

# The upper limit of iterations with a stop rule, where none is given.
MOST_ITERATIONS = 300


class Deconvolver:
    """A restoration made ready for images of one shape: transfer function, plans and buffers are made once.

    Parameters
    ----------
    shape
        Of the images, (z, y, x) or (y, x).
    psf
        A `PSF`, or a bare array on the image's voxel grid; of any size, odd or even, centred at n // 2.  None for
        methods that need none.
    method, options
        A name in `METHODS` with its options as keywords, or an instance, which has its options already.
    background
        What the camera shows without light, in the image's units: a number, an image, or "auto", which estimates a
        number for each image.
    camera
        Offset, gain and read noise, where they are known.  The offset is not light and has no shot noise; the read
        noise is added to it (Snyder, Hammoud & White, J. Opt. Soc. Am. A 10, 1993); a background below the offset
        counts as the offset, so that a dark frame should be the mean of many.
    saturation
        The grey value from which voxels are no measurement.
    stop
        "fixed": after the method's ``iterations``.  A stop rule takes these for the upper limit (300 where they are not
        given; an instance keeps its own): "auto" or a `HoldOut` chooses the number from the image, a `RelativeChange`
        stops when little changes.
    edges
        "extend" (the object goes on beyond the image), "reflect" or "periodic"; see `ForwardModel`.
    device, threads
        "auto", "cpu", "cuda" or "cuda:N"; the number of CPU threads.
    voxel_um
        Size of the image's voxels, (z, y, x) or (y, x).  Where given, a PSF of another pitch is resampled and
        differences are weighed by it; else the PSF's own size is taken for the image's.
    constants
        What `decide` found for a larger image, with the same settings, of which the images are parts.  Nothing is
        decided from the parts then, no stop rule runs, and they may be dark; so each is restored as in the whole, up to
        the light that its surroundings send in: give a margin of `gpudecon.halo` voxels and crop it from the result.

    After a call ``found`` has the constants that the image was restored with: what "auto" came to.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        psf: PSF | Array | None,
        method: str | Method = "rl",
        *,
        background: Background = 0.0,
        camera: Camera | None = None,
        saturation: float | None = None,
        stop: Stop = "fixed",
        edges: Edges = "extend",
        device: str = "auto",
        threads: int | None = None,
        voxel_um: tuple[float, ...] | None = None,
        constants: Constants | None = None,
        **options: Any,
    ) -> None:
        self.shape = checked_shape(shape)
        self.stop = HoldOut() if isinstance(stop, str) and stop == "auto" else stop
        if isinstance(method, str) and self.stop != "fixed" and hasattr(METHODS.get(method), "iterations"):
            options = {"iterations": MOST_ITERATIONS, **options}
        self.method = make_method(method, options)
        check_stop(self.stop, self.method)
        if constants is not None:
            constants.check(self.method)
            check_divisible(self.method, edges)
        self.constants = self.found = constants
        self.conditions = Conditions(background, camera, saturation)
        if voxel_um is not None:
            voxel_um = checked_voxel_um(voxel_um, len(self.shape))
        self.psf = checked_psf(psf, self.method, len(self.shape), voxel_um)
        self.backend = get_backend(device, threads=threads)
        self._busy = threading.Lock()  # one image at a time has the buffers
        sizes = voxel_um or (self.psf and self.psf.voxel_um) or (1.0,) * len(self.shape)
        self._voxel_um = three_dimensional(sizes, sizes[0])
        box = three_dimensional(self.shape, 1)
        with self.backend.active():
            if self.psf is None:
                self._model: ForwardModel = Unblurred(self.backend, box)
            else:
                kernel = self.psf.array.reshape(three_dimensional(self.psf.shape, 1))
                self._model = ForwardModel(self.backend, box, kernel, edges)

    def __call__(
        self,
        image: Array,
        callback: Callback | None = None,
        *,
        mask: Array | None = None,
        divergence_every: int = 10,
    ) -> Array:
        """The restored image: float32, same shape; a CuPy array if the image is one on this device, else NumPy's.

        ``callback(iteration, estimate, info)`` is called after each iteration, from 1; the estimate is image-shaped, on
        the backend, and valid until the next iteration.  Every ``divergence_every`` iterations (0: never) and at the
        last one `Info.divergence` is computed, which costs one more blur and waits for the device.  ``mask``, boolean,
        is True where the voxel is measured; what is not is estimated from its surroundings.
        """
        image = checked_image(image)
        with self._busy:
            if self.constants is None:
                record = Record()
                method, estimate = self._iterate(image, mask, callback, divergence_every, record)
                self.found = self._constants(method, record)
            else:
                _, estimate = self._iterate(image, mask, callback, divergence_every)
            return _result(self.backend, estimate, self._model.image_shape, image)

    def decide(
        self, image: Array, mask: Array | None = None, *, recorded: Mapping[str, Sequence[float]] | None = None
    ) -> Constants:
        """What restoring this image decides and restoring a part of it must take from the whole: see ``constants``.

        The image is restored once, with all that is chosen and warned of on the way.  It may be a sample of a larger
        image; ``recorded`` then has what is known of the whole, such as its background (`gpudecon.pilot.survey`).
        """
        if self.conditions.saturation is not None and not self.method.takes_mask:
            raise InputError(f"{self.method.name} cannot leave saturated voxels out; restore without saturation.")
        record = Record(recorded)
        with self._busy:
            method, _ = self._iterate(checked_image(image), mask, None, 0, record)
        return self._constants(method, record)

    def check_psf(self, image: Array, *, mask: Array | None = None) -> TooWide | None:
        """Whether a narrower PSF would explain the image's counts better; None: no.

        See `gpudecon.quality.psf_width.too_wide`.  Of a large image its brightest part is taken, which is restored with
        `rl`, whatever the method, twice and in at most 150 iterations.
        """
        if self.psf is None:
            raise InputError(f"{self.method.name} has no PSF that could be checked.")
        kernel = self.psf.array.reshape(three_dimensional(self.psf.shape, 1))
        image = checked_image(image)
        self._check_fit(image)
        with self._busy, self.backend.active():
            return too_wide(
                problem_of(image, mask, self.conditions, make_method("rl", {}), self._model, self._voxel_um), kernel
            )

    def _constants(self, method: Method, record: Record) -> Constants:
        return Constants(self.method, method, {name: tuple(values) for name, values in record.noted.items()})

    def _check_fit(self, image: Array) -> None:
        if tuple(image.shape) != self.shape:
            raise InputError(f"The image has shape {tuple(image.shape)}; this Deconvolver was made for {self.shape}.")

    def _iterate(
        self,
        image: Array,
        mask: Array | None,
        callback: Callback | None,
        divergence_every: int,
        record: Record | None = None,
    ) -> tuple[Method, Array]:
        """(the method with all that was chosen, the last estimate, on the domain)."""
        self._check_fit(image)
        if hasattr(image, "__cuda_array_interface__") and not self.backend.owns(image):
            image = image.get()
        with self.backend.active():
            decided = self.constants if record is None else None
            if record is None:
                record = Record() if decided is None else Record(decided.recorded, is_part=True)
            problem = problem_of(image, mask, self.conditions, self.method, self._model, self._voxel_um, record)
            start = time.perf_counter()
            method = settled(self.method, problem) if decided is None else decided.method
            stop: object = self.stop if decided is None else "fixed"
            last = getattr(method, "iterations", 1)
            choice: Choice | None = None
            if isinstance(stop, HoldOut):
                choice = stop.choose(method, dataclasses.replace(problem, record=Record()), last)
                _warn_of_limit(choice, method)
                last = choice.iterations
            previous: Array = None
            for iteration, estimate in enumerate(method.iterate(problem), start=1):
                is_last = iteration == last
                if isinstance(stop, RelativeChange):
                    is_last |= previous is not None and stop.is_reached(estimate, previous)
                    previous = estimate.copy()
                if callback is not None:
                    due = divergence_every > 0 and (iteration % divergence_every == 0 or is_last)
                    divergence = _divergence(problem, estimate) if due else None
                    info = Info(time.perf_counter() - start, divergence, choice)
                    callback(iteration, self._model.crop(estimate).reshape(self.shape), info)
                if is_last:
                    break
            is_iterative = hasattr(method, "iterations")
            finding = unexplained(problem, estimate) if is_iterative and decided is None else None
        if finding is not None:
            warnings.warn(str(finding), GpudeconWarning, stacklevel=3)
        return dataclasses.replace(method, iterations=iteration) if is_iterative else method, estimate


def deconvolve(
    image: Array,
    psf: PSF | Array | None = None,
    method: str | Method = "rl",
    *,
    mask: Array | None = None,
    background: Background = 0.0,
    camera: Camera | None = None,
    saturation: float | None = None,
    stop: Stop = "fixed",
    edges: Edges = "extend",
    device: str = "auto",
    threads: int | None = None,
    voxel_um: tuple[float, ...] | None = None,
    constants: Constants | None = None,
    callback: Callback | None = None,
    divergence_every: int = 10,
    check_psf: bool = False,
    **options: Any,
) -> Array:
    """Restore one image: see `Deconvolver` for the parameters and `METHODS` for the methods and their options.

    NumPy in, NumPy out; CuPy in, CuPy out.  The image is not changed; the result has its shape, is float32 and in its
    units, neither clipped nor rescaled.  ``check_psf`` warns where `Deconvolver.check_psf` finds the PSF too wide.

    A Dask array gives a lazy one in the same chunks, each to be restored with a margin of `gpudecon.halo` voxels;
    unless ``constants`` are given samples of the image are computed at once, and `decide` restores one of them.

    >>> restored = deconvolve(image, psf, method="rl", iterations=30, background=100.0)    # doctest: +SKIP
    """
    settings = {
        "background": background,
        "camera": camera,
        "saturation": saturation,
        "stop": stop,
        "edges": edges,
        "device": device,
        "threads": threads,
        "voxel_um": voxel_um,
        **options,
    }
    if is_lazy(image):
        if mask is not None or callback is not None or check_psf:
            raise InputError("A Dask array is restored without mask, callback and check_psf; give a NumPy array.")
        return _lazily(image, psf, method, constants, settings)
    image = checked_image(image)
    decon = Deconvolver(image.shape, psf, method, constants=constants, **settings)
    finding = decon.check_psf(image, mask=mask) if check_psf else None
    if finding is not None:
        warnings.warn(str(finding), GpudeconWarning, stacklevel=2)
    _, estimate = decon._iterate(image, mask, callback, divergence_every)
    backend, box = decon.backend, decon._model.image_shape
    del decon  # the result needs room; transfer function, weights and work space are done with
    return _result(backend, estimate, box, image)


def decide(
    read: Callable[[Place], Array],
    places: Sequence[Place],
    psf: PSF | Array | None = None,
    method: str | Method = "rl",
    *,
    background: Background = 0.0,
    camera: Camera | None = None,
    saturation: float | None = None,
    **settings: Any,
) -> Constants:
    """Decide for an image too large to be restored whole what its parts must share, from samples of it.

    ``read(place)`` returns the sample (z, y, x) or (y, x) at a place: for an array, ``image.__getitem__`` and
    `pilot_regions` of its shape.  Background, highest value and mean level come from all samples.  The one with most
    structure is restored, as `Deconvolver` says, which see for the settings: stop rule, noise and factors are its own.
    """
    sample, known = survey(read, places, Conditions(background, camera, saturation))
    given = {"background": background, "camera": camera, "saturation": saturation, **settings}
    return Deconvolver(sample.shape, psf, method, **given).decide(sample, recorded=known if len(places) > 1 else None)


def _lazily(
    image: Any, psf: PSF | Array | None, method: str | Method, constants: Constants | None, settings: dict[str, Any]
) -> Any:
    """The result as a Dask array; see `deconvolve`."""
    check_lazy(image)

    def read(box: Box) -> Array:
        return image[box].compute()

    if constants is None:
        constants = decide(read, pilot_regions(image.shape), psf, method, **settings)
    voxel_um = settings["voxel_um"]
    on_grid = None if psf is None else as_psf(psf, image.ndim, voxel_um)
    margin = halo(on_grid, constants.method, voxel_um=voxel_um, edges=settings["edges"])
    restore = functools.partial(deconvolve, psf=on_grid, method=method, constants=constants, **settings)
    return blockwise(image, margin, restore)


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


def _divergence(problem: Problem, estimate: Array) -> float:
    """Mean I-divergence between the image and the blurred estimate, on the image's own box."""
    nz, ny, _ = problem.image.shape
    rows = problem.backend.xp.empty((nz, ny), np.float64)
    work = problem.model.blur(estimate)
    problem.backend.ops.poisson_divergence(
        rows, work, problem.image, problem.background, problem.background_image, problem.mask, FLOOR * problem.highest
    )
    return float(rows.sum()) / int(problem.image.size)


def _warn_of_limit(choice: Choice, method: Method) -> None:
    if choice.limited:
        faster = " or use acceleration='shb'" if getattr(method, "acceleration", None) == "none" else ""
        warnings.warn(
            f"{method.name}: the error against the held-out counts was still falling at the limit of "
            f"{choice.curve[-1][0]} iterations; for finer detail raise iterations{faster}.",
            GpudeconWarning,
            stacklevel=5,
        )
