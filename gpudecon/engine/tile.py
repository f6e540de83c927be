"""One task of a plan: a tile is read, restored, written and put down in the journal, by whichever process it is."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array, Transfer, get_backend
from gpudecon.camera import Camera
from gpudecon.constants import Constants
from gpudecon.deconvolve import Callback, Deconvolver, Info, decide
from gpudecon.engine.halving import Halving
from gpudecon.engine.journal import Record
from gpudecon.engine.memory import in_words
from gpudecon.engine.plan import Plan, Task
from gpudecon.engine.remarks import noted_warnings
from gpudecon.engine.seams import Seam, check_seams
from gpudecon.engine.tiling import Box, Shape
from gpudecon.engine.workspace import Lock, Workspace
from gpudecon.errors import DeviceMemoryError, GpudeconWarning, InputError, RunError
from gpudecon.halo import is_divisible
from gpudecon.image import Image, Region
from gpudecon.io import read
from gpudecon.io.fingerprint import fingerprint
from gpudecon.io.store import Store
from gpudecon.methods import Method, make_method
from gpudecon.pilot import LARGEST_REGION, REGIONS, pilot_regions
from gpudecon.psf.psf import PSF
from gpudecon.recording import checked_range

_opening = threading.Lock()


def restore_tile(
    folder: str | os.PathLike[str], index: int, *, device: str | None = None, threads: int | None = None
) -> Record:
    """Carry out task ``index`` of the plan in the workspace ``folder``, in this process, on ``device`` (None: as
    planned).

    Doing a task again changes nothing.  What is read once, plans and transfer function, is kept for the next call,
    until `forget` or a call for another plan; several threads may call it, and one of them computes at a time.
    Meanwhile no run may begin, resume or finish in the folder.
    """
    path = Path(folder)
    with Lock(path / "lock", shared=True):
        written = (path / "plan.json").stat()
        try:
            with _opening:
                worker = _worker(path, device, threads, (written.st_ino, written.st_mtime_ns))
        except InputError as error:  # of the input, which was there when the run began and may be seen again
            raise RunError(str(error)) from error
        return worker.restore(index)


@lru_cache(maxsize=1)
def _worker(folder: Path, device: str | None, threads: int | None, _: tuple[int, int]) -> Worker:
    return Worker(Workspace(folder), device=device, threads=threads)


def forget() -> None:
    """Give back the memory of what `restore_tile` keeps."""
    _worker.cache_clear()


@dataclass(frozen=True)
class Restored:
    """A core, float32, on its way to the host; the iterations and seconds that it took; the warnings that came up; what
    was found for it where it was restored without constants.
    """

    block: Transfer
    iterations: int
    seconds: float
    said: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)


class Worker:
    """Carries out the tasks of a plan; input, store and one `Deconvolver` stay open between them.

    `restore` does one task from beginning to end; `read`, `compute` and `write` are its three parts, which a
    `Conveyor` runs at the same time for different tasks.  ``device`` and ``threads`` replace the planned ones.
    """

    def __init__(
        self, workspace: Workspace, image: Image | None = None, *, device: str | None = None, threads: int | None = None
    ) -> None:
        self.workspace = workspace
        self.plan = workspace.plan
        self.image = source_of(self.plan) if image is None else image
        self._device = device or self.plan.needs.device
        self._threads = threads or self.plan.needs.threads
        self._backend = get_backend(self._device, threads=self._threads)
        self._store = Store.open(workspace.tiles)
        self._psfs = workspace.psfs
        self._computing = threading.Lock()  # one device, one tile at a time
        self._decon: tuple[int, Deconvolver] | None = None
        self._halving: Halving | None = None

    def restore(self, index: int) -> Record:
        """The whole of one task."""
        task = self.plan.task(index)
        return self.write(task, self.compute(task, self.read(task)))

    def read(self, task: Task) -> Transfer:
        """What the task is computed from, on its way to the device; from any thread."""
        return self._backend.send(self._pixels_again(task.source))

    def compute(
        self, task: Task, coming: Transfer, callback: Callback | None = None, *, divergence_every: int = 0
    ) -> Restored:
        """The task's core restored, by one thread at a time.

        Where the memory does not suffice for a tile, this one and all that follow are restored in two halves.
        """
        done = 0

        def count(iteration: int, estimate: Array, info: Info) -> None:
            nonlocal done
            done = iteration
            if callback is not None:
                callback(iteration, estimate, info)

        with self._computing, noted_warnings() as said:
            start = time.perf_counter()
            core = self._core(task, coming.wait(), count, divergence_every)
            seconds = time.perf_counter() - start
            return Restored(self._backend.fetch(core), done, seconds, tuple(said), self._found())

    def write(self, task: Task, restored: Restored) -> Record:
        """Put the core into the store and then the task into the journal; from any thread."""
        start = time.perf_counter()
        block = restored.block.wait()
        self._store.write(task.target, block)
        seconds = restored.seconds + time.perf_counter() - start
        record = Record.of("tile", task.index, block, seconds, restored.iterations, restored.said, restored.found)
        self.workspace.journal.add(record)
        return record

    def seams(self, channel: int) -> list[Seam]:
        """What `check_seams` finds at the channel's first time point, whose tiles are all restored."""
        plan = self.plan
        position = plan.channels.index(channel)
        self._decon = None  # its memory is needed for the windows

        def restore(box: Box) -> NDArray[np.float32]:
            block = self._pixels_again(self.image.region(plan.timepoints[0], channel, box))
            restored: NDArray[np.float32] = self._made(channel, block.shape)(block)
            return restored.reshape(_lengths(box))

        def written(box: Box) -> NDArray[np.float32]:
            return self._store.read(self._store.image.region(0, position, box)).reshape(_lengths(box))

        return check_seams(plan.tiling, restore, written)

    def constants(self, channel: int) -> Constants | None:
        """What is decided once for all tiles of a channel, by the worker that comes first; None: each stack is restored
        whole, and there is but one or its method cannot do with what was decided for others.
        """
        plan = self.plan
        is_single = len(plan.tiling) == len(plan.timepoints) == 1 and self._halving is None
        if is_single or not self._is_divisible:
            return None
        found = self.workspace.decided(f"constants-{channel:04d}", lambda: self._decide(channel))
        return Constants.from_dict(found["constants"])

    def _decide(self, channel: int) -> dict[str, Any]:
        """From samples no larger than a tile, or half of one where the memory does not suffice for that."""
        most = min(LARGEST_REGION, math.prod(self.plan.tiling.read_shape))
        try:
            return self._decided(channel, most)
        except MemoryError:
            pass  # its frames hold what there is too little memory for: leave them first
        try:
            return self._decided(channel, most // 2)
        except MemoryError as error:
            raise self._exhausted(str(error)) from error

    def _decided(self, channel: int, voxels: int) -> dict[str, Any]:
        """From samples of at most so many voxels, at time points that are spread over all."""
        plan = self.plan
        boxes = pilot_regions(self.image.spatial_shape, voxels)
        count = max(len(boxes), min(REGIONS, len(plan.timepoints)))
        times = [plan.timepoints[i * len(plan.timepoints) // count] for i in range(count)]
        places = [(timepoint, boxes[i % len(boxes)]) for i, timepoint in enumerate(times)]

        def read(place: tuple[int, tuple[slice, ...]]) -> NDArray[Any]:
            timepoint, box = place
            sample = self._pixels(self.image.region(timepoint, channel, (slice(None),) * (3 - len(box)) + box))
            try:
                checked_range(sample)
            except InputError as error:
                raise InputError(f"{part_of(plan, channel, timepoint)}: {error}") from error
            return sample

        with noted_warnings() as said:
            constants = decide(read, places, *self._psf_and_method(channel), **self._settings)
        return {"constants": constants.to_dict(), "warnings": said}

    def _found(self) -> dict[str, Any]:
        """What the last stack was restored with, if that was decided for it alone."""
        assert self._decon is not None
        decon = self._decon[1]
        return {} if decon.found is None or decon.constants is not None else decon.found.summary()

    def _pixels(self, region: Region) -> NDArray[Any]:
        """The input's (z, y, x) or (y, x) at a region of one channel and time point."""
        block = np.asarray(self.image.data[region])
        return block.reshape(block.shape[-len(self.image.spatial_axes) :])

    def _pixels_again(self, region: Region) -> NDArray[Any]:
        """The same of what could be read when the run began, and may be readable again after an error."""
        try:
            return self._pixels(region)
        except InputError as error:
            raise RunError(str(error)) from error

    def _deconvolver(self, task: Task, shape: Shape) -> Deconvolver:
        """For windows of this shape in the task's channel; one at a time is alive."""
        if self._decon is None or self._decon[0] != task.channel or self._decon[1].shape != self._shape(shape):
            self._decon = None  # its memory is needed for the next one
            self._decon = task.channel, self._made(task.channel, self._shape(shape))
            self.workspace.note_device(self._decon[1].backend.describe())
        return self._decon[1]

    def _made(self, channel: int, shape: tuple[int, ...]) -> Deconvolver:
        constants = self.constants(channel)
        return Deconvolver(shape, *self._psf_and_method(channel), constants=constants, **self._settings)

    def _psf_and_method(self, channel: int) -> tuple[PSF | None, Method]:
        position = self.plan.channels.index(channel)
        psf = self._psfs[position % len(self._psfs)] if self._psfs else None
        return psf, make_method(self.plan.method, self.plan.options)

    @property
    def _is_divisible(self) -> bool:
        return is_divisible(make_method(self.plan.method, self.plan.options), self.plan.settings["edges"])

    @property
    def _settings(self) -> dict[str, Any]:
        given = self.plan.settings
        return {
            "background": given["background"],
            "camera": None if given["camera"] is None else Camera(**given["camera"]),
            "saturation": given["saturation"],
            "stop": given["stop"],
            "edges": given["edges"] or "extend",
            "device": self._device,
            "threads": self._threads,
            "voxel_um": self.plan.source.voxel_um,
        }

    def _core(self, task: Task, block: Array, callback: Callback, divergence_every: int) -> Array:
        """On the device, contiguous."""
        if self._halving is None:
            try:
                return self._whole(task, block, callback, divergence_every)
            except MemoryError as error:
                trouble = str(error)  # its frames hold what there is too little memory for: leave them first
            self._halving = self._half(trouble)
        return self._in_halves(task, block, callback, self._halving)

    def _whole(self, task: Task, block: Array, callback: Callback, divergence_every: int) -> Array:
        decon = self._deconvolver(task, self.plan.tiling.read_shape)
        with self._backend.active():
            restored = decon(self._backend.upload(block), callback, divergence_every=divergence_every)
            core = restored[self._box(task.tile.crop)]
            return core if core.shape == restored.shape else core.copy()  # lest the margin waits with it

    def _half(self, trouble: str) -> Halving:
        self._decon = None
        tiling = self.plan.tiling
        halving = Halving.of(tiling) if self._is_divisible else None
        if halving is None:
            raise self._exhausted(trouble)
        warnings.warn(
            f"{trouble.rstrip('.')}: too little memory for tiles of {tiling.read_shape}, which are restored in halves "
            f"of {halving.window_shape} from here on; plan with a smaller --memory or --tile.",
            GpudeconWarning,
            stacklevel=3,
        )
        return halving

    def _in_halves(self, task: Task, block: Array, callback: Callback, halving: Halving) -> Array:
        try:
            decon = self._deconvolver(task, halving.window_shape)
            with self._backend.active():
                core = self._backend.xp.empty(self._shape(_lengths(task.tile.core)), np.float32)
                for piece in halving.pieces(task.tile):
                    window = self._backend.upload(block[self._box(piece.window)])
                    restored = decon(window, callback, divergence_every=0)
                    core[self._box(piece.core)] = restored[self._box(piece.crop)]
        except MemoryError as error:
            raise self._exhausted(str(error)) from error
        return core

    def _exhausted(self, trouble: str) -> DeviceMemoryError:
        free, _ = self._backend.memory()
        if self._is_divisible:
            way_out = (
                f"half a tile does not fit either ({trouble.rstrip('.')}); begin anew with a smaller --memory or --tile"
            )
        else:
            way_out = (
                f"{self.plan.method} with these options and edges has to be done whole ({trouble.rstrip('.')}); use a "
                "device with more memory, or a method that can be done in parts, such as rl with edges extend"
            )
        return DeviceMemoryError(
            f"A tile of {self.plan.tiling.read_shape} needs {in_words(self.plan.needs.bytes)} of memory, "
            f"{in_words(free)} are free, and {way_out}."
        )

    def _shape(self, shape: Shape) -> tuple[int, ...]:
        """As the image has it: without z where it has none."""
        return shape[-len(self.image.spatial_axes) :]

    def _box(self, box: Box) -> tuple[slice, ...]:
        return box[-len(self.image.spatial_axes) :]


def _lengths(box: Box) -> Shape:
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def source_of(plan: Plan) -> Image:
    """The input, opened again; InputError where it is not what was planned for."""
    image = read(plan.source.path, plan.source.given_axes)
    source = plan.source
    if fingerprint(source.path, source.given_axes) != source.fingerprint or image.shape != source.shape:
        raise InputError(f"{source.path} has changed since the run was planned; plan it again.")
    return replace(image, voxel_um=source.voxel_um)


def name_of(plan: Plan, task: Task) -> str:
    """What a task restores, in words."""
    return part_of(plan, task.channel, task.timepoint, task.tile.index)


def part_of(plan: Plan, channel: int, timepoint: int | None = None, tile: int | None = None) -> str:
    """A part of the input in words; None: all of them."""
    sizes = dict(zip(plan.source.axes, plan.source.shape, strict=True))
    parts = [Path(plan.source.path).name]
    if sizes.get("c", 1) > 1:
        parts.append(f"channel {channel}")
    if timepoint is not None and sizes.get("t", 1) > 1:
        parts.append(f"time point {timepoint}")
    if tile is not None and len(plan.tiling) > 1:
        parts.append(f"tile {tile + 1} of {len(plan.tiling)}")
    return ", ".join(parts)
