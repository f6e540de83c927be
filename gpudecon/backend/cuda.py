"""CudaOps: the operations of `NumpyOps` as CUDA kernels; finds, compiles and launches ``kernels/*.cu``.

A kernel has the name and the arguments of its twin, followed by the sizes, which `CudaOps` reads off the arrays.
Whatever would make a kernel touch foreign memory (a type, a shape, a stride) is refused here.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

    from gpudecon.backend.ops import Array

Extent = tuple[int, int, int]

# The same numbers as enum PixelType in kernels/common.cuh.
PIXEL_CODES = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 1, np.dtype(np.int16): 2, np.dtype(np.float32): 3}


class Kernel(NamedTuple):
    """Where a kernel is written, and its threads per block along x, y, z."""

    file: str
    block: Extent = (32, 4, 2)

    def grid(self, extent: Extent) -> Extent:
        """Blocks along x, y, z that cover ``extent`` = (z, y, x) threads."""
        x, y, z = (-(-n // threads) for n, threads in zip(reversed(extent), self.block, strict=True))
        return x, y, z


ROW_THREADS = 256  # of those that sum: one block sums one row
KERNELS = {
    "load_extended": Kernel("load_store.cu"),
    "store_cropped": Kernel("load_store.cu"),
    "multiply_otf": Kernel("spectrum.cu"),
    "regularized_filter": Kernel("spectrum.cu"),
    "rl_ratio": Kernel("richardson_lucy.cu"),
    "rl_excess": Kernel("richardson_lucy.cu"),
    "rl_unmatched_factor": Kernel("richardson_lucy.cu"),
    "rl_step": Kernel("richardson_lucy.cu"),
    "rl_predict": Kernel("richardson_lucy.cu"),
    "tv_factor": Kernel("roughness.cu"),
    "good_factor": Kernel("roughness.cu"),
    "tikhonov_factor": Kernel("roughness.cu"),
    "rl_update": Kernel("richardson_lucy.cu"),
    "rl_update_momentum": Kernel("richardson_lucy.cu"),
    "poisson_divergence": Kernel("divergence.cu", block=(ROW_THREADS, 1, 1)),
    "radial_expand": Kernel("radial_expand.cu"),
    "residual": Kernel("least_squares.cu"),
    "projected_step": Kernel("least_squares.cu"),
    "bounded_sum": Kernel("least_squares.cu"),
    "tv_dual": Kernel("total_variation.cu"),
    "tv_primal": Kernel("total_variation.cu"),
    "inner_product": Kernel("row_sums.cu", block=(ROW_THREADS, 1, 1)),
    "tv_gap": Kernel("row_sums.cu", block=(ROW_THREADS, 1, 1)),
}


def kernel_folder() -> Traversable:
    """The folder of the .cu files: inside the wheel, or the checkout's own where the install is editable."""
    packaged = files("gpudecon") / "kernels"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "kernels"


def kernel_source(name: str) -> str:
    """The text of one .cu file with ``common.cuh`` pasted in front, not included.

    CuPy's disk cache knows a program by its text and its options, not by the files that it includes.
    """
    folder = kernel_folder()
    parts = (f'#line 1 "{part}"\n{(folder / part).read_text(encoding="utf-8")}' for part in ("common.cuh", name))
    return "\n".join(parts)


class Launch(Protocol):
    """Runs one kernel on at least ``extent`` = (z, y, x) threads; None among ``args`` is a null pointer."""

    def __call__(self, kernel: str, extent: Extent, args: Sequence[object]) -> None: ...


class RawModuleLauncher:
    """Launches on CuPy's current device and stream; compiles each .cu file when it is first used."""

    def __init__(self) -> None:
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def __call__(self, kernel: str, extent: Extent, args: Sequence[object]) -> None:
        entry = KERNELS[kernel]
        if kernel not in self._functions:
            self._functions[kernel] = self._module(entry.file).get_function(kernel)
        # CuPy hands on None as an argument without a value, which is not the same as a null pointer.
        pointers = tuple(np.uintp(0) if arg is None else arg for arg in args)
        self._functions[kernel](entry.grid(extent), entry.block, pointers)

    def _module(self, file: str) -> Any:
        import cupy

        if file not in self._modules:
            self._modules[file] = cupy.RawModule(code=kernel_source(file), options=("-std=c++17",))
        return self._modules[file]


class CudaOps:
    """The operations of `NumpyOps`, where each is defined, on the arrays of a device."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def load_extended(self, work: Array, image: Array) -> None:
        self._launch("load_extended", work.shape, (work, image, *_domain(work), *_box(image, work)))

    def multiply_otf(self, spectrum: Array, otf: Array, conjugate: bool) -> None:
        sizes = _sizes(spectrum, np.complex64, spectrum.shape)
        _sizes(otf, np.complex64, spectrum.shape)
        self._launch("multiply_otf", spectrum.shape, (spectrum, otf, np.bool_(conjugate), *sizes))

    def rl_ratio(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        scene = _scene(image, background, background_image, mask, floor)
        self._launch("rl_ratio", work.shape, (work, image, *scene, *_domain(work), *_box(image, work)))

    def rl_excess(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        scene = _scene(image, background, background_image, mask, floor)
        self._launch("rl_excess", work.shape, (work, image, *scene, *_domain(work), *_box(image, work)))

    def rl_unmatched_factor(self, work: Array, weights: Array | None) -> None:
        self._launch("rl_unmatched_factor", work.shape, (work, weights, *_domain(work), _pitch(weights, work.shape)))

    def rl_step(self, work: Array, step: Array, estimate: Array, weights: Array | None) -> None:
        pitches = (_pitch(array, work.shape) for array in (step, estimate, weights))
        self._launch("rl_step", work.shape, (work, step, estimate, weights, *_domain(work), *pitches))

    def rl_predict(self, estimate: Array, previous: Array, work: Array, momentum: float) -> None:
        pitches = (_pitch(array, estimate.shape) for array in (previous, work))
        arguments = estimate, previous, work, np.float32(momentum)
        self._launch("rl_predict", estimate.shape, (*arguments, *_domain(estimate), *pitches))

    def tv_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        self._factor("tv_factor", factors, estimate, weights, strength, smooth, scale_z, scale_y, scale_x)

    def good_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        self._factor("good_factor", factors, estimate, weights, strength, smooth, scale_z, scale_y, scale_x)

    def tikhonov_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        self._factor("tikhonov_factor", factors, estimate, weights, strength, scale_z, scale_y, scale_x)

    def _factor(self, kernel: str, factors: Array, estimate: Array, weights: Array | None, *scalars: float) -> None:
        sizes = *_domain(factors), _pitch(estimate, factors.shape), _pitch(weights, factors.shape)
        self._launch(kernel, factors.shape, (factors, estimate, weights, *map(np.float32, scalars), *sizes))

    def rl_update(self, estimate: Array, work: Array, weights: Array | None) -> None:
        shape = estimate.shape
        pitches = _pitch(work, shape), _pitch(weights, shape)
        self._launch("rl_update", shape, (estimate, work, weights, *_domain(estimate), *pitches))

    def rl_update_momentum(
        self, estimate: Array, previous: Array, work: Array, weights: Array | None, momentum: float, excess: float
    ) -> None:
        shape = estimate.shape
        pitches = _pitch(previous, shape), _pitch(work, shape), _pitch(weights, shape)
        arguments = estimate, previous, work, weights, np.float32(momentum), np.float32(excess)
        self._launch("rl_update_momentum", shape, (*arguments, *_domain(estimate), *pitches))

    def regularized_filter(
        self,
        spectrum: Array,
        otf: Array,
        laplacian_z: Array,
        laplacian_y: Array,
        laplacian_x: Array,
        noise_to_signal: float,
        gamma: float,
        scale: float,
    ) -> None:
        nz, ny, nx = spectrum.shape
        sizes = _sizes(spectrum, np.complex64, spectrum.shape)
        _sizes(otf, np.complex64, spectrum.shape)
        laplacian = laplacian_z, laplacian_y, laplacian_x
        for part, shape in zip(laplacian, ((nz, 1), (ny,), (nx,)), strict=True):
            _sizes(part, np.float32, shape)
        scalars = np.float32(noise_to_signal), np.float32(gamma), np.float32(scale)
        self._launch("regularized_filter", spectrum.shape, (spectrum, otf, *laplacian, *scalars, *sizes))

    def poisson_divergence(
        self,
        rows: Array,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        nz, ny = image.shape[:2]
        _sizes(rows, np.float64, (nz, ny))
        _, domain_y, _, pitch = _domain(work)
        _, *row_sizes = _box(image, work)
        scene = _scene(image, background, background_image, mask, floor)
        arguments = rows, work, image, *scene, domain_y, pitch, *row_sizes
        self._launch("poisson_divergence", _row_blocks(rows), arguments)

    def store_cropped(self, out: Array, source: Array, scale: float, offset: float) -> None:
        if out.dtype == np.int16:
            raise TypeError("store_cropped writes uint8, uint16 or float32, not int16.")
        _, domain_y, _, pitch = _domain(source)
        arguments = out, source, np.float32(scale), np.float32(offset), domain_y, pitch, *_box(out, source)
        self._launch("store_cropped", out.shape, arguments)

    def radial_expand(
        self, out: Array, table: Array, centre_y: float, centre_x: float, pitch_y: float, pitch_x: float
    ) -> None:
        nz, ny, nx = out.shape
        samples = table.shape[1]
        y, x = (max(c, n - 1 - c) * p for n, c, p in ((ny, centre_y, pitch_y), (nx, centre_x, pitch_x)))
        if np.hypot(y, x) >= samples - 2:
            raise TypeError(f"A table of {samples} samples does not reach two beyond the radius {np.hypot(y, x):.1f}.")
        sizes = *_sizes(out, np.float32, out.shape), *_sizes(table, np.float32, (nz, samples))[1:]
        geometry = map(np.float64, (centre_y, centre_x, pitch_y, pitch_x))
        self._launch("radial_expand", out.shape, (out, table, *geometry, *sizes))

    def residual(
        self, work: Array, image: Array, background: float, background_image: Array | None, mask: Array | None
    ) -> None:
        *scene, _ = _scene(image, background, background_image, mask, 0.0)
        self._launch("residual", work.shape, (work, image, *scene, *_domain(work), *_box(image, work)))

    def projected_step(self, estimate: Array, work: Array, step: float, lowest: float) -> None:
        sizes = *_domain(estimate), _pitch(work, estimate.shape)
        self._launch("projected_step", estimate.shape, (estimate, work, np.float32(step), np.float32(lowest), *sizes))

    def bounded_sum(
        self,
        target: Array,
        other: Array,
        estimate: Array,
        target_factor: float,
        other_factor: float,
        lowest: float,
    ) -> None:
        sizes = *_domain(target), _pitch(other, target.shape), _pitch(estimate, target.shape)
        scalars = map(np.float32, (target_factor, other_factor, lowest))
        self._launch("bounded_sum", target.shape, (target, other, estimate, *scalars, *sizes))

    def inner_product(self, rows: Array, work: Array, other: Array) -> None:
        nz, ny, nx = work.shape
        _sizes(rows, np.float64, (nz, ny))
        sizes = np.int32(ny), np.int32(nx), _pitch(work, work.shape), _pitch(other, work.shape)
        self._launch("inner_product", _row_blocks(rows), (rows, work, other, *sizes))

    def tv_dual(
        self,
        dual: Array,
        lead: Array,
        estimate: Array,
        step_z: float,
        step_y: float,
        step_x: float,
        momentum: float,
    ) -> None:
        for vectors in (dual, lead):
            _sizes(vectors, np.float32, (3, *estimate.shape))
        scalars = map(np.float32, (step_z, step_y, step_x, momentum))
        self._launch("tv_dual", estimate.shape, (dual, lead, estimate, *scalars, *_domain(estimate)))

    def tv_primal(
        self,
        estimate: Array,
        source: Array,
        dual: Array,
        weight_z: float,
        weight_y: float,
        weight_x: float,
        lowest: float,
    ) -> None:
        _sizes(dual, np.float32, (3, *estimate.shape))
        scalars = map(np.float32, (weight_z, weight_y, weight_x, lowest))
        sizes = *_domain(estimate), _pitch(source, estimate.shape)
        self._launch("tv_primal", estimate.shape, (estimate, source, dual, *scalars, *sizes))

    def tv_gap(self, rows: Array, estimate: Array, dual: Array, scale_z: float, scale_y: float, scale_x: float) -> None:
        nz, ny, _ = estimate.shape
        _sizes(rows, np.float64, (nz, ny))
        _sizes(dual, np.float32, (3, *estimate.shape))
        scalars = map(np.float32, (scale_z, scale_y, scale_x))
        self._launch("tv_gap", _row_blocks(rows), (rows, estimate, dual, *scalars, *_domain(estimate)))


def _row_blocks(rows: Array) -> Extent:
    """The extent of a kernel with one block for each of ``rows``.

    y goes along the grid's x: along its y it has at most 65535 blocks, and tall images have more rows.
    """
    nz, ny = rows.shape
    return nz, 1, ny * ROW_THREADS


def _pitch(array: Array | None, shape: tuple[int, ...]) -> np.int32:
    """Floats from one row of a domain array to the next; 0 for no array."""
    if array is None:
        return np.int32(0)
    plane, row, column = array.strides
    if array.dtype != np.float32 or array.shape != shape or column != 4 or row % 4 or plane != row * shape[1]:
        raise TypeError(
            f"A domain array must be float32 {shape} with evenly spaced rows, "
            f"not {array.dtype} {array.shape} with strides {array.strides}."
        )
    return np.int32(row // 4)


def _domain(array: Array) -> tuple[np.int32, ...]:
    """Sizes of a domain array along z, y and x, and its pitch."""
    return *map(np.int32, array.shape), _pitch(array, array.shape)


def _sizes(array: Array, dtype: Any, shape: tuple[int, ...]) -> tuple[np.int32, ...]:
    """Sizes of a contiguous array, which must have this type and shape."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise TypeError(
            f"A contiguous {np.dtype(dtype)} array {shape} is needed, "
            f"not {array.dtype} {array.shape} with strides {array.strides}."
        )
    return tuple(map(np.int32, shape))


def _scene(
    image: Array, background: float, background_image: Array | None, mask: Array | None, floor: float
) -> tuple[Any, ...]:
    """What is known beside the image, checked, in the kernels' order."""
    if background_image is not None:
        _sizes(background_image, np.float32, image.shape)
    if mask is not None:
        _sizes(mask, np.uint8, image.shape)
    return np.float32(background), background_image, mask, np.float32(floor)


def _box(image: Array, domain: Array) -> tuple[np.int32, ...]:
    """Sizes of an image along z, y and x, and the code of its pixel type; it must fit into the domain."""
    if image.dtype not in PIXEL_CODES:
        raise TypeError(f"Pixels must be {', '.join(map(str, PIXEL_CODES))}, not {image.dtype}.")
    if any(n > length for n, length in zip(image.shape, domain.shape, strict=True)):
        raise TypeError(f"An image of {image.shape} does not fit into a domain of {domain.shape}.")
    return *_sizes(image, image.dtype, image.shape), np.int32(PIXEL_CODES[image.dtype])
