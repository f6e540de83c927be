"""How much memory a restoration needs, buffer by buffer.

On the CPU this is what NumPy allocates, measured to a few percent (bench/memory.py); for CUDA it is the same count of
arrays with cuFFT's work area, not yet measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from gpudecon.backend import Backend
from gpudecon.backend.slabs import largest_slab, slab_length
from gpudecon.engine.tiling import Shape, Tiling
from gpudecon.forward import Edges
from gpudecon.methods import Method
from gpudecon.methods.median import SAMPLE
from gpudecon.methods.photon_transfer import BLOCK, DIFFERENCE
from gpudecon.pilot import LARGEST_REGION, pilot_regions

Buffers = dict[str, int]
"""Bytes by name."""

# Temporary arrays of each CPU thread, in slabs: what a library's transforms return, and what operations make.
FFT_RESULTS = {"ducc0": 0.5, "scipy": 1.1}
OPERATION = {"rl": 1.25, "gold": 1.25, "landweber": 1.4, "ictm": 3.5, "fista_tv": 6.5, "tv": 6.5}
# of which those of tv and fista_tv are slabs of three fields
UNMATCHED = 2.9
MOMENTUM = 2.0
PENALTY = {"tv": 9.0, "goods_roughness": 5.5, "tikhonov": 5.5}  # of the slab and a plane on either side
DIFFERENCES = 55.5  # bytes for each fourth difference that is looked at for the noise
STATISTICS = 14  # half planes in double precision that are gathered into bins
FILTERED = 4  # of them, where a spectrum is multiplied by a function of the frequency's length
SAMPLED = 16  # bytes per voxel of the median filter's sample
INTERPRETER = 220 << 20  # Python with NumPy, SciPy, Zarr and the codecs, resident
AHEAD, BEHIND = 2, 2  # tiles that are read, or restored and not yet written, beside the one in hand
ENCODING = 1  # results in compressed form, on their way to the disk
TABLES = 256 << 10  # rows, tables and Python's own objects
FLAT = 32  # images that a filter without a PSF makes of a single plane on its way, in double precision


def restoration_buffers(
    method: Method,
    shape: tuple[int, ...],
    psf_shape: tuple[int, ...] | None,
    edges: Edges,
    backend: Backend,
    dtype: DTypeLike = np.float32,
    *,
    part: bool = False,
    copied: bool = False,
    masked: bool = False,
    held_out: bool = False,
) -> Buffers:
    """What a restoration holds at its peak beside the image given to it, on the device of ``backend``.

    ``shape`` and ``dtype`` are the image's.  ``part``: by a `Deconvolver` that stays, with constants from a larger
    image; else by `deconvolve`.  ``copied``: the image is changed first, for a camera's offset or negative values.
    ``masked``: by a mask or saturated voxels.  ``held_out``: the number of iterations is chosen by a `HoldOut`.

    For volumes between what is measured and 10 % more; for 2-D images an upper bound, as temporary arrays are as large
    as the image.
    """
    counted = _Count(method, _three(shape), None if psf_shape is None else _three(psf_shape), edges, backend)
    return max(counted.stages(np.dtype(dtype), part, copied, masked, held_out), key=lambda s: sum(s.values()))


def restoration_bytes(
    method: Method,
    shape: tuple[int, ...],
    psf_shape: tuple[int, ...] | None,
    edges: Edges,
    backend: Backend,
    dtype: DTypeLike = np.float32,
) -> int:
    """Bytes that `deconvolve` needs at its peak beside the image given to it; see `restoration_buffers`."""
    return sum(restoration_buffers(method, shape, psf_shape, edges, backend, dtype).values())


def padded_shape(shape: Shape, psf_shape: Shape, edges: Edges, backend: Backend) -> Shape:
    """The domain on which a volume is restored; see `ForwardModel`."""
    if edges == "periodic":
        return shape
    return _three(backend.padded_shape(tuple(n + p - 1 for n, p in zip(shape, psf_shape, strict=True))))


@dataclass(frozen=True)
class _Count:
    """The sizes of one restoration's arrays."""

    method: Method
    box: Shape
    psf_shape: Shape | None
    edges: Edges
    backend: Backend

    def stages(
        self, dtype: np.dtype[np.generic], part: bool, copied: bool, masked: bool, held_out: bool
    ) -> list[Buffers]:
        """What is held at the moments that may be the peak."""
        method, field, image = self.method, self.field, self.image
        is_float = dtype == np.float32
        # what `problem_of` makes of the image
        converted = image if copied or dtype not in (np.uint8, np.uint16, np.int16, np.float32) else 0
        given = image if converted or is_float else dtype.itemsize * math.prod(self.box)
        model = {**self.model, "image in float32": converted, "tables": TABLES}
        if self.threads == 0:
            model["image on the device"] = given
        if masked:
            model |= {"image, masked": given, "mask": 2 * math.prod(self.box), "weights, masked": field}
        # iterative methods and tv hold the image in float32, on the whole domain where it is continued
        if not (self.is_iterative or method.name == "tv"):
            data = 0
        elif self.psf_shape is not None and self.edges == "reflect":
            data = 4 * math.prod(self.domain)
        else:
            data = 0 if is_float or converted else image
        compared = {"image to compare with": data}
        fields = {f"fields of {method.name}": int(method.arrays * field)}
        is_unmatched = getattr(method, "back_projector", "matched") != "matched"
        if is_unmatched and (self.edges == "extend" or masked):
            fields["weights of the back projector"] = field
        stages = [
            {**model, **compared, **fields, "temporary arrays": self.temporary},
            {**(model if part else {"tables": TABLES}), "estimate": field, "result": image},
        ]
        light = data or image
        start = getattr(method, "start", "flat")
        if start != "flat":
            smoothing = {"temporary arrays": max(self.results, self.threads * self._slab(self.plane))}
            stages.append({**model, **compared, "estimate": field, "light": light, **smoothing})
        if start == "wiener":
            boxed = image if self.edges == "reflect" else 0
            filtered = {"light in the image's box": boxed, "filtered image": field, "statistics": self.statistics}
            stages.append({**stages[-1], **filtered})
        if part:
            return stages
        if self.is_iterative or method.name in ("wiener", "cls"):
            stages.append({**model, "estimate": field * self.is_iterative, "statistics": self.statistics})
        if is_unmatched and getattr(method, "alpha", None) == "auto":
            stages.append({**model, "differences for the noise": self.differences})
        if held_out:  # two restorations go on side by side
            continued = 4 * data if self.edges == "reflect" else 0
            halves = {"halves of the counts": 2 * image, "halves, continued": continued}
            pair = {f"{name}, twice": 2 * size for name, size in fields.items()}
            stages.append({**model, **halves, **pair, "temporary arrays": self.temporary})
            stages.append({**model, "noise beyond the PSF's band": int(1.5 * field + 6.4 * image)})
        return stages

    @property
    def image(self) -> int:
        """In float32."""
        return 4 * math.prod(self.box)

    @property
    def is_iterative(self) -> bool:
        return hasattr(self.method, "iterations")

    @cached_property
    def domain(self) -> Shape:
        return self.box if self.psf_shape is None else padded_shape(self.box, self.psf_shape, self.edges, self.backend)

    @property
    def plane(self) -> int:
        """One of a field, or of a spectrum."""
        _, ny, nx = self.domain
        return 4 * ny * nx if self.psf_shape is None else 8 * ny * (nx // 2 + 1)

    @property
    def values(self) -> int:
        """Of a plane of a field, without what pads its rows: by these operations are cut into slabs."""
        _, ny, nx = self.domain
        return 4 * ny * nx

    @property
    def field(self) -> int:
        return self.domain[0] * self.plane

    @property
    def model(self) -> Buffers:
        """Of the `ForwardModel`."""
        if self.psf_shape is None:
            return {}
        model = {"PSF": 4 * math.prod(self.psf_shape), "transfer function": self.field, "work space": self.field}
        if self.edges == "extend":
            model["weights"] = self.field
        if self.threads == 0:
            return model | {"cuFFT's work area": self.field}
        planes = min(self.domain[0], largest_slab(self.plane))
        return model | {"planes in transform": self.threads * planes * self.plane}

    @property
    def threads(self) -> int:
        """Of the CPU; 0 on a GPU, whose kernels need no temporary arrays."""
        slabs = getattr(self.backend, "slabs", None)
        return 0 if slabs is None else int(slabs.threads)

    @property
    def results(self) -> int:
        """Of transforms, where they do not go into the field itself."""
        if self.psf_shape is None:
            return 0
        return int(self.threads * FFT_RESULTS[getattr(self.backend, "fft_library", "scipy")] * self._slab(self.plane))

    @property
    def temporary(self) -> int:
        """Arrays that the greediest operation of an iteration makes; on a GPU those of array functions, not kernels."""
        method, is_on_gpu = self.method, self.threads == 0
        is_filter = not self.is_iterative and method.name != "tv"
        if self.psf_shape is None and self.box[0] == 1 and (is_filter or not is_on_gpu):
            return FLAT * self.image
        if method.name == "median" and not is_on_gpu:
            voxels = math.prod(self.box)
            return SAMPLED * (voxels // -(-voxels // SAMPLE)) * (method.arrays > 2)
        if is_filter:
            return FILTERED * self.plane
        if is_on_gpu:
            return 0
        slabs = OPERATION.get(method.name, 0.0)
        if getattr(method, "acceleration", "none") != "none":
            slabs = MOMENTUM
        if getattr(method, "back_projector", "matched") != "matched":
            slabs = UNMATCHED
        own = slabs * self._cut(3 if method.name in ("tv", "fista_tv") else 1) * self.plane  # vectors, three fields
        penalty = max((count for name, count in PENALTY.items() if getattr(method, name, 0)), default=0.0)
        if penalty:
            planes = min(self._cut(4) + 2, self.domain[0])
            own = max(own, penalty * planes * self.values)
        return max(int(self.threads * own), self.results)

    @property
    def statistics(self) -> int:
        """Planes in double precision, from which spectra are gathered."""
        return STATISTICS * self.plane

    @property
    def differences(self) -> int:
        """See `photon_transfer.differences`, which takes a small image whole."""
        looked_at = self.box if math.prod(self.box) <= 4 * math.prod(BLOCK) else BLOCK
        lost = len(DIFFERENCE) - 1
        return int(DIFFERENCES * math.prod(n - lost if n > 2 * lost else n for n in looked_at))

    def _slab(self, bytes_per_plane: int) -> int:
        """Bytes of a slab of a field, where a plane of all that is worked on has so many."""
        return slab_length(self.domain[0], bytes_per_plane) * self.plane

    def _cut(self, fields: int) -> int:
        """Planes of a slab in operations on so many fields at once."""
        return slab_length(self.domain[0], fields * self.values)


@dataclass(frozen=True)
class Handling:
    """What is done to the pixels beside restoring them; see `restoration_buffers` and `HoldOut`."""

    copied: bool = False
    masked: bool = False
    held_out: bool = False


def tile_buffers(
    method: Method,
    tiling: Tiling,
    psf_shape: Shape | None,
    edges: Edges,
    backend: Backend,
    dtype: DTypeLike,
    handling: Handling = Handling(),
) -> Buffers:
    """What restoring tile after tile needs: of the whole process on the CPU, on the device on a GPU.

    While a tile is restored, the next two are read, and the two results before it are encoded and written.  Before the
    first, a pilot is restored whole, which is no larger than a tile; where that needs more, it is what counts.
    """
    read, is_on_cpu = tiling.read_shape, getattr(backend, "slabs", None) is not None
    itemsize = np.dtype(dtype).itemsize
    changes = {"copied": handling.copied, "masked": handling.masked}
    tile = restoration_buffers(method, read, psf_shape, edges, backend, dtype, part=True, **changes)
    sample = _three(tuple(part.stop - part.start for part in pilot_regions(tiling.stack, _pilot_voxels(tiling))[0]))
    pilot = restoration_buffers(method, sample, psf_shape, edges, backend, dtype, held_out=handling.held_out, **changes)
    block, result = math.prod(read) * itemsize, 4 * math.prod(map(min, tiling.stack, tiling.core_shape))
    if is_on_cpu:
        process = {"Python and libraries": INTERPRETER}
        waiting = {
            "tiles read ahead": AHEAD * block,
            "results being written": (BEHIND + 1) * result + ENCODING * result,
        }
        tile = process | {"tile": block} | tile | waiting
        pilot = process | {"samples": math.prod(sample) * 2 * itemsize} | pilot
    else:
        tile |= {"tiles sent ahead": AHEAD * block, "results being fetched": (BEHIND + 1) * result}
    return max(tile, {f"{name}, of the pilot": size for name, size in pilot.items()}, key=lambda b: sum(b.values()))


def _pilot_voxels(tiling: Tiling) -> int:
    whole = math.prod(tiling.read_shape)
    return whole if len(tiling) == 1 else min(LARGEST_REGION, whole)


def in_words(size: int) -> str:
    """1610612736 -> "1.50 GiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size / 1024:.1f} KiB"


def _three(shape: tuple[int, ...]) -> Shape:
    z, y, x = (1,) * (3 - len(shape)) + tuple(shape)
    return z, y, x
