"""One task of a plan: a tile is read, restored, written and put down in the journal, by whichever process it is."""

from __future__ import annotations

import os
import threading
import time
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import get_backend
from gpudecon.camera import Camera
from gpudecon.constants import Constants
from gpudecon.deconvolve import Callback, Deconvolver
from gpudecon.engine.halving import Halving
from gpudecon.engine.journal import Record
from gpudecon.engine.memory import in_words
from gpudecon.engine.plan import Plan, Task
from gpudecon.engine.tiling import Box, Shape
from gpudecon.engine.workspace import Workspace
from gpudecon.errors import DeviceMemoryError, GpudeconWarning, InputError, RunError
from gpudecon.image import Image
from gpudecon.io import read
from gpudecon.io.fingerprint import fingerprint
from gpudecon.io.store import Store, checksum
from gpudecon.methods import make_method


def restore_tile(
    folder: str | os.PathLike[str], index: int, *, device: str | None = None, threads: int | None = None
) -> Record:
    """Carry out task ``index`` of the plan in the workspace ``folder``, in this process, on ``device`` (None: as
    planned).

    Doing a task again changes nothing.  What is read once, plans and transfer function, is kept for the next call.
    """
    return _worker(Path(folder), device, threads).restore(index)


@lru_cache(maxsize=1)
def _worker(folder: Path, device: str | None, threads: int | None) -> Worker:
    return Worker(Workspace.open(folder), device=device, threads=threads)


@dataclass(frozen=True)
class Restored:
    """A core, float32, and the seconds that it took to compute."""

    block: NDArray[np.float32]
    seconds: float


class Worker:
    """Carries out the tasks of a plan; input, store and one `Deconvolver` stay open between them.

    `restore` does one task from beginning to end; `read`, `compute` and `write` are its three parts, which a
    `Conveyor` runs at the same time for different tasks.
    """

    def __init__(
        self,
        workspace: Workspace,
        image: Image | None = None,
        *,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.workspace = workspace
        self.plan = workspace.plan
        self.image = source_of(self.plan) if image is None else image
        self.store = Store.open(workspace.tiles)
        self._device = device or self.plan.needs.device
        self._threads = threads or self.plan.needs.threads
        self._psfs = workspace.psfs
        self._computing = threading.Lock()  # one device, one tile at a time
        self._halving: Halving | None = None
        self._position = -1
        self._decon: Deconvolver | None = None

    def restore(self, index: int) -> Record:
        """The whole of one task."""
        task = self.plan.task(index)
        return self.write(task, self.compute(task, self.read(task)))

    def read(self, task: Task) -> NDArray[Any]:
        """What the task is computed from; from any thread."""
        try:
            block = np.asarray(self.image.data[task.source])
        except InputError as error:  # what was readable at the beginning may be so again
            raise RunError(str(error)) from error
        return block.reshape(self._shape(self.plan.tiling.read_shape))

    def compute(
        self, task: Task, block: NDArray[Any], callback: Callback | None = None, divergence_every: int = 0
    ) -> Restored:
        """The task's core restored, by one thread at a time.

        Where the device's memory does not suffice this tile and all that follow are restored in two halves.
        """
        with self._computing:
            start = time.perf_counter()
            if self._halving is None:
                try:
                    whole = self._deconvolver(task, self.plan.tiling.read_shape)(
                        block, callback, divergence_every=divergence_every
                    )
                    core = np.array(whole[self._box(task.tile.crop)])
                    return Restored(core, time.perf_counter() - start)
                except MemoryError as error:
                    trouble = str(error)  # the error holds frames, and these hold what there is too little memory for
                self._halve(trouble)
            return Restored(self._in_halves(task, block, callback), time.perf_counter() - start)

    def write(self, task: Task, restored: Restored) -> Record:
        """Put the core into the store and then the task into the journal; from any thread."""
        block = restored.block
        self.store.write(task.target, block)
        record = Record(
            "tile", task.index, checksum(block), float(block.min()), float(block.max()), round(restored.seconds, 6)
        )
        self.workspace.journal.add(record)
        return record

    def _in_halves(self, task: Task, block: NDArray[Any], callback: Callback | None) -> NDArray[np.float32]:
        assert self._halving is not None
        core = np.empty([part.stop - part.start for part in self._box(task.tile.core)], np.float32)
        decon = self._deconvolver(task, self._halving.window_shape)
        try:
            for piece in self._halving.pieces(task.tile):
                part = decon(block[self._box(piece.window)], callback, divergence_every=0)
                core[self._box(piece.core)] = part[self._box(piece.crop)]
        except MemoryError as error:
            raise self._exhausted(str(error)) from error
        return core

    def _halve(self, trouble: str) -> None:
        self._decon = None
        self._halving = Halving.of(self.plan.tiling)
        if self._halving is None:
            raise self._exhausted(trouble)
        warnings.warn(
            f"{trouble.rstrip('.')}: too little memory for tiles of {self.plan.tiling.read_shape}; from here on they "
            f"are restored in halves of {self._halving.window_shape}. Ask for less by --memory or --tile.",
            GpudeconWarning,
            stacklevel=2,
        )

    def _exhausted(self, trouble: str) -> DeviceMemoryError:
        free, _ = get_backend(self._device, threads=self._threads).memory()
        return DeviceMemoryError(
            f"A tile of {self.plan.tiling.read_shape} needs {in_words(self.plan.needs.bytes)}, and {in_words(free)} of "
            f"memory are free, in halves neither ({trouble.rstrip('.')}); begin anew with a smaller --memory or --tile."
        )

    def _deconvolver(self, task: Task, shape: Shape) -> Deconvolver:
        """For tasks of this channel and windows of this shape; one at a time is alive."""
        position = self.plan.channels.index(task.channel)
        if self._decon is None or position != self._position or self._decon.shape != self._shape(shape):
            self._decon = None  # its memory is needed for the next one
            constants = self.constants(position)
            self._decon = self._made(position, self._shape(shape), constants)
            self._position = position
        return self._decon

    def constants(self, position: int) -> Constants:
        """What is decided once for all tiles of a channel, by the worker that comes first."""
        found = self.workspace.decided(f"constants-{position:04d}", lambda: self._decide(position))
        return Constants.from_dict(found["constants"])

    def _decide(self, position: int) -> dict[str, Any]:
        with noted_warnings() as said:
            ...
        return {"constants": constants.to_dict(), "warnings": said}

    def _made(self, position: int, shape: tuple[int, ...], constants: Constants | None) -> Deconvolver:
        settings = self.plan.settings
        return Deconvolver(
            shape,
            self._psfs[position % len(self._psfs)] if self._psfs else None,
            make_method(self.plan.method, self.plan.options),
            background=settings["background"],
            camera=None if settings["camera"] is None else Camera(**settings["camera"]),
            saturation=settings["saturation"],
            stop=settings["stop"],
            edges=settings["edges"] or "extend",
            device=self._device,
            threads=self._threads,
            voxel_um=self.plan.source.voxel_um,
            constants=constants,
        )

    def _shape(self, shape: Shape) -> tuple[int, ...]:
        """Of an image: without z where it has none."""
        return shape[-len(self.image.spatial_axes) :]

    def _box(self, box: Box) -> tuple[slice, ...]:
        return box[-len(self.image.spatial_axes) :]


def source_of(plan: Plan) -> Image:
    """The input, opened again; InputError where it is not what was planned for."""
    image = read(plan.source.path, plan.source.given_axes)
    if fingerprint(plan.source.path) != plan.source.fingerprint or image.shape != plan.source.shape:
        raise InputError(f"{plan.source.path} has changed since the run was planned; plan it again.")
    return replace(image, voxel_um=plan.source.voxel_um)


def name_of(plan: Plan, task: Task) -> str:
    """Which part of the input a task restores, in words."""
    sizes = dict(zip(plan.source.axes, plan.source.shape, strict=True))
    parts = [Path(plan.source.path).name]
    if sizes.get("c", 1) > 1:
        parts.append(f"channel {task.channel}")
    if sizes.get("t", 1) > 1:
        parts.append(f"time point {task.timepoint}")
    if len(plan.tiling) > 1:
        parts.append(f"tile {task.tile.index + 1} of {len(plan.tiling)}")
    return ", ".join(parts)
