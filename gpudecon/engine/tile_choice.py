"""Which tile: the cheapest that fits the memory, and what the output is stored in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from gpudecon.backend import Backend
from gpudecon.engine.job import Job
from gpudecon.engine.memory import Handling, in_words, padded_shape, tile_buffers
from gpudecon.engine.tiling import Shape, Tiling
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.halo import check_divisible, halo
from gpudecon.psf.psf import PSF, as_psf

CHUNK: Shape = (32, 256, 256)  # of the output, at most
SMALLER = ((16, 8, 4, 2, 1), (128, 64, 32), (128, 64, 32))  # chunks, where the tile must be smaller
MULTIPLE: Shape = (1, 16, 16)  # of which chunks of a given tile are, where it is smaller than `CHUNK`
MOST_SHARD = 256 << 20  # bytes: levels of a pyramid are made from eight of them
# Cutting z costs a halo above and below, and light from there is known less well; it is worth it only for this factor.
WHOLE_Z = 2.0
RESERVE = 0.1  # of a GPU's free memory, for what is no array: the context, kernels, gaps between blocks
SHARE = 0.5  # of this machine's memory, where nothing was said


@dataclass(frozen=True)
class Choice:
    """The tiles, what they are stored in (lengths along z, y, x), and what they need; see `Needs`."""

    tiling: Tiling
    chunks: Shape
    shards: Shape | None
    padded_shape: Shape
    buffers: dict[str, int]
    available: int
    limit: str


@dataclass(frozen=True)
class Candidate:
    """Cores of one shape with the chunks in them, the padded shape, the bytes, and the cost of the whole stack.

    ``is_transformable``: the backend has transforms so large.
    """

    tiling: Tiling
    chunks: Shape
    padded_shape: Shape
    buffers: dict[str, int]
    cost: float
    is_transformable: bool

    @property
    def bytes(self) -> int:
        return sum(self.buffers.values())

    def fits(self, most: int) -> bool:
        return self.is_transformable and self.bytes <= most

    @property
    def waste(self) -> float:
        """Voxels that all tiles transform, over those of the stack."""
        return len(self.tiling) * math.prod(self.padded_shape) / math.prod(self.tiling.stack)


def choose_tile(job: Job, backend: Backend, *, sharded: bool, memory: int | None, tile: Shape | None) -> Choice:
    """The tile for a job; see `plan_job`."""
    choosing = _Choosing(job, backend)
    most, limit, available = _limit(backend, memory)
    if tile is not None:
        chosen, limit = choosing.candidate(*_rounded(choosing.stack, tile)), "the tile that was asked for"
        choosing.check_cut(chosen)
        choosing.check_fits(chosen, most if memory is not None else available, "This tile", "give a smaller one")
    else:
        whole = choosing.candidate(choosing.stack, _chunks_of(choosing.stack, choosing.stack))
        if choosing.halo is None:
            chosen = whole
            most = most if memory is not None else available
            choosing.check_fits(chosen, most, f"{choosing.reason}: restoring the whole stack", "crop the image")
            limit = "the image, which cannot be cut"
        elif whole.fits(most):
            chosen, limit = whole, "the image, which fits whole"
        else:
            chosen = choosing.search(most)
            if choosing.is_transform_short or whole.bytes <= most:
                limit = f"the largest transform of {backend.name}, {backend.largest_transform} numbers"
    shards = _shards(chosen) if sharded else None
    unit = shards or chosen.chunks
    tiling = Tiling(chosen.tiling.stack, chosen.tiling.core_shape, chosen.tiling.halo, unit)
    return Choice(tiling, chosen.chunks, shards, chosen.padded_shape, chosen.buffers, most, limit)


class _Choosing:
    """What a job says about its tiles.

    After `search`, ``is_transform_short`` says whether it left out what fitted the memory but not a transform.
    """

    def __init__(self, job: Job, backend: Backend) -> None:
        self._job, self._backend = job, backend
        self._dtype = job.image.dtype
        shape = job.image.spatial_shape
        self.stack = _three(shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is resampled is said when it is used
            psfs = [as_psf(psf, len(shape), job.image.voxel_um) for psf in job.psfs]
        self._psf: Shape | None = None
        if psfs:
            z, y, x = (max(lengths) for lengths in zip(*(_three(psf.shape) for psf in psfs), strict=True))
            self._psf = z, y, x
        self._handling = Handling(
            copied=job.camera is not None or (job.method.counts_only and self._dtype.kind != "u"),
            masked=job.saturation is not None,
            held_out=job.stop == "auto",
        )
        self.reason = ""
        self.is_transform_short = False
        self.halo = self._halo(psfs)

    def _halo(self, psfs: list[PSF]) -> Shape | None:
        """What has to be read around a core; None, with a reason, where a stack cannot be cut."""
        job = self._job
        try:
            check_divisible(job.method, job.edges)
        except InputError as error:
            self.reason = str(error).split(";")[0].rstrip(".")
            return None
        shape = job.image.spatial_shape
        sizes = job.image.voxel_um or (1.0,) * len(shape)
        kernels: list[PSF | None] = [*psfs] or [None]
        margins = [halo(psf, job.method, voxel_um=sizes, edges=job.edges) for psf in kernels]
        z, y, x = (max(lengths) for lengths in zip(*map(_margin, margins), strict=True))
        return z, y, x

    def candidate(self, core: Shape, chunks: Shape) -> Candidate:
        tiling = Tiling(self.stack, core, self.halo or (0, 0, 0), chunks)
        read = tiling.read_shape
        job, backend = self._job, self._backend
        padded = read if self._psf is None else padded_shape(read, self._psf, job.edges, backend)
        buffers = tile_buffers(job.method, tiling, self._psf, job.edges, backend, self._dtype, self._handling)
        cost = math.prod(read) if self._psf is None else backend.transform_cost(padded)
        numbers, largest = math.prod(padded[:2]) * 2 * (padded[2] // 2 + 1), backend.largest_transform
        is_transformable = self._psf is None or largest is None or numbers <= largest
        return Candidate(tiling, chunks, padded, buffers, len(tiling) * cost, is_transformable)

    def check_fits(self, candidate: Candidate, most: int, what: str, advice: str) -> None:
        """Refuse a candidate without an alternative."""
        if candidate.bytes > most:
            raise InputError(
                f"{what} needs {in_words(candidate.bytes)} of memory, but {in_words(most)} may be used; "
                f"allow more, or {advice}."
            )
        if not candidate.is_transformable:
            raise InputError(
                f"{what} needs a transform of {candidate.padded_shape}, but those of {self._backend.name} have at most "
                f"{self._backend.largest_transform} numbers; use device 'cpu', or {advice}."
            )

    def check_cut(self, candidate: Candidate) -> None:
        if self.halo is None and len(candidate.tiling) > 1:
            whole = self.candidate(self.stack, _chunks_of(self.stack, self.stack))
            raise InputError(
                f"{self.reason}, but the tile makes {len(candidate.tiling)}; leave it out (the whole stack needs "
                f"{in_words(whole.bytes)})."
            )

    def search(self, most: int) -> Candidate:
        """The cheapest candidate that fits ``most`` bytes; with z whole unless that is `WHOLE_Z` times as dear."""
        along_z, along_y, along_x = (
            list(_lengths(n, chunk, smaller)) for n, chunk, smaller in zip(self.stack, CHUNK, SMALLER, strict=True)
        )
        (z, cz), (y, cy), (x, cx) = along_z[-1], along_y[-1], along_x[-1]
        smallest = self.candidate((z, y, x), (cz, cy, cx))
        self.check_fits(smallest, most, "The smallest tile", "give a smaller PSF")
        uncut = self._cheapest(along_z[:1], along_y, along_x, most)
        if uncut is not None and uncut.waste <= WHOLE_Z / SLACK:
            return uncut  # no cut can be so much cheaper
        cut = self._cheapest(along_z[1:], along_y, along_x, most)
        if uncut is not None and (cut is None or uncut.cost <= WHOLE_Z * cut.cost):
            return uncut
        return cut or smallest

    def _cheapest(self, along_z: Lengths, along_y: Lengths, along_x: Lengths, most: int) -> Candidate | None:
        """Of the cores with these lengths.

        A stack has thousands of candidates and a padded shape takes a while to find.  So they are looked at in the
        order of the voxels that all tiles transform, before padding, without those that cannot fit, or contain one
        that did not;
        and the search ends where no padded shape could be cheap enough any more.
        """
        kernel = self._psf or (1, 1, 1)
        made = []
        for (z, cz), (y, cy), (x, cx) in product(along_z, along_y, along_x):
            tiling = Tiling(self.stack, (z, y, x), self.halo or (0, 0, 0))
            least = math.prod(n + p - 1 for n, p in zip(tiling.read_shape, kernel, strict=True))
            if LEAST_BYTES * least <= most:
                made.append((len(tiling) * least, (z, y, x), (cz, cy, cx)))
        best: Candidate | None = None
        cheapest_voxel = math.inf
        too_large: list[Shape] = []
        for voxels, core, chunks in sorted(made):
            if best is not None and voxels * cheapest_voxel / SLACK > best.cost:
                break
            if any(all(c >= n for c, n in zip(core, other, strict=True)) for other in too_large):
                continue
            found = self.candidate(core, chunks)
            cheapest_voxel = min(cheapest_voxel, found.cost / voxels)
            if not found.fits(most):
                too_large.append(core)
                self.is_transform_short |= found.bytes <= most
            elif best is None or found.cost < best.cost:
                best = found
        return best


LEAST_BYTES = 4  # that any restoration takes for a voxel of its domain
SLACK = 1.5  # how much less a voxel may cost in the shapes not yet looked at
Lengths = list[tuple[int, int]]  # (core, chunk) along an axis


def _lengths(length: int, chunk: int, smaller: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(core, chunk) along an axis from the whole axis down: even cuts in whole chunks, then of smaller chunks."""
    yield length, min(chunk, length)
    last = length
    for parts in range(2, -(-length // chunk) + 1):
        core = math.ceil(length / parts / chunk) * chunk
        if core < last:
            yield core, chunk
            last = core
    yield from ((k * n, n) for n in smaller for k in (3, 1) if k * n < length)


def _rounded(stack: Shape, tile: Shape) -> tuple[Shape, Shape]:
    """(core, chunks): the tile rounded up to whole chunks, with a warning where that changes it."""
    if min(tile) < 1:
        raise InputError(f"The tile is {tile}; give at least 1 voxel along z, y and x.")
    chunks = _chunks_of(stack, tile)
    z, y, x = (min(n, -(-t // c) * c) for n, t, c in zip(stack, tile, chunks, strict=True))
    core = (z, y, x)
    asked = tuple(min(n, t) for n, t in zip(stack, tile, strict=True))
    if core != asked:
        warnings.warn(
            f"The tile {asked} is rounded up to {core}: tiles are whole chunks of the output, here {chunks}.",
            GpudeconWarning,
            stacklevel=2,
        )
    return core, chunks


def _chunks_of(stack: Shape, tile: Shape) -> Shape:
    """Chunks for a tile: `CHUNK`, or what is smaller, the tile or the stack."""
    z, y, x = (
        min(n, most, -(-t // multiple) * multiple)
        for n, most, t, multiple in zip(stack, CHUNK, tile, MULTIPLE, strict=True)
    )
    return z, y, x


def _shards(chosen: Candidate) -> Shape | None:
    """The core in whole chunks, or an even part of it where that is more than `MOST_SHARD`; None: chunks are enough."""
    cut = [count > 1 for count in chosen.tiling.counts]
    numbers = [-(-core // chunk) for core, chunk in zip(chosen.tiling.core_shape, chosen.chunks, strict=True)]
    chunk_bytes = 4 * math.prod(chosen.chunks)
    while math.prod(numbers) * chunk_bytes > MOST_SHARD and max(numbers) > 1:
        axis = numbers.index(max(numbers))
        numbers[axis] = _largest_divisor(numbers[axis]) if cut[axis] else -(-numbers[axis] // 2)
    z, y, x = (number * chunk for number, chunk in zip(numbers, chosen.chunks, strict=True))
    return None if max(numbers) == 1 else (z, y, x)


def _largest_divisor(n: int) -> int:
    """The largest but n itself."""
    return n // next((p for p in range(2, math.isqrt(n) + 1) if n % p == 0), n)


def _limit(backend: Backend, memory: int | None) -> tuple[int, str, int]:
    """(most bytes to use, in words where they come from, bytes that there are)."""
    free, _ = backend.memory()
    if memory is not None:
        return memory, f"the memory allowed, {in_words(memory)}", free
    if backend.name == "cpu":
        return int(SHARE * free), f"half of the memory that is free, {in_words(int(SHARE * free))}", free
    most = int((1 - RESERVE) * free)
    return most, f"the free memory of {backend.name}, {in_words(free)}, less a reserve", most


def _three(shape: tuple[int, ...]) -> Shape:
    z, y, x = (1,) * (3 - len(shape)) + tuple(shape)
    return z, y, x


def _margin(lengths: tuple[int, ...]) -> Shape:
    """A halo along z, y and x: none along z for a plane."""
    z, y, x = (0,) * (3 - len(lengths)) + tuple(lengths)
    return z, y, x
