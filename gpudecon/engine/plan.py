"""A plan: a job cut into tasks that can be carried out anywhere and in any order, in a file of JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gpudecon._version import __version__
from gpudecon.backend import Backend, get_backend
from gpudecon.engine.job import Job
from gpudecon.engine.tile_choice import Choice, choose_tile
from gpudecon.engine.tiling import Box, Shape, Tile, Tiling
from gpudecon.errors import InputError
from gpudecon.image import Region
from gpudecon.io import located
from gpudecon.io.fingerprint import check_apart, fingerprint


@dataclass(frozen=True)
class Source:
    """The input, so that another process reads the same, or sees that it has changed.

    ``given_axes`` is what `gpudecon.read` is to be told of the file's axes (None: nothing); ``axes``, ``shape``,
    ``dtype`` and ``voxel_um`` are those of the `Image` that it gives, with the voxel size that the job uses.
    """

    path: str
    given_axes: str | None
    axes: str
    shape: tuple[int, ...]
    dtype: str
    voxel_um: tuple[float, ...] | None
    fingerprint: str


@dataclass(frozen=True)
class Kernel:
    """Identity of a PSF: that of its values (`PSF.sha256`), its shape and voxel size."""

    sha256: str
    shape: tuple[int, ...]
    voxel_um: tuple[float, ...] | None


@dataclass(frozen=True)
class Needs:
    """What carrying out a task takes, and why the tiles are as large as they are; no part of what is computed.

    ``padded_shape`` is transformed for each tile; ``buffers`` are bytes by name, in the memory of ``device`` unless
    the name says otherwise; ``available`` bytes were counted on, and ``limit`` says what decided the tile.
    """

    device: str
    threads: int | None
    padded_shape: Shape
    buffers: dict[str, int]
    available: int
    limit: str

    @property
    def bytes(self) -> int:
        """Of all buffers."""
        return sum(self.buffers.values())


@dataclass(frozen=True)
class Task:
    """One tile of one channel and time point.

    ``timepoint`` and ``channel`` are those of the input.  ``source`` is the region of the input's axes that is read,
    ``target`` the one of the output's that is written, with the length 1 along t and c where there are such axes.
    """

    index: int
    timepoint: int
    channel: int
    tile: Tile
    source: Region
    target: Region


@dataclass(frozen=True)
class Plan:
    """What is to be done, complete: with the PSFs' values and the `Constants` any process can do any task.

    ``psfs`` has one entry for all channels or one for each, or none.  ``settings`` are background, camera, saturation,
    stop rule and edges, as numbers and words.  ``chunks`` and ``shards`` (None: unsharded) are lengths along z, y, x of
    what the output is stored in.  Tasks are counted along tiles first, then time points, then channels.
    """

    version: str
    source: Source
    output: str
    ngff: Literal["0.4", "0.5"]
    dtype: str
    channels: tuple[int, ...]
    timepoints: tuple[int, ...]
    psfs: tuple[Kernel, ...]
    method: str
    options: dict[str, Any]
    settings: dict[str, Any]
    tiling: Tiling
    chunks: Shape
    shards: Shape | None
    needs: Needs

    def __len__(self) -> int:
        return len(self.channels) * len(self.timepoints) * len(self.tiling)

    def task(self, index: int) -> Task:
        """Number ``index`` from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"Task {index} of {len(self)}.")
        stack, tile_index = divmod(index, len(self.tiling))
        position, when = divmod(stack, len(self.timepoints))
        tile = self.tiling[tile_index]
        channel, timepoint = self.channels[position], self.timepoints[when]
        return Task(
            index,
            timepoint,
            channel,
            tile,
            self._region(timepoint, channel, tile.read),
            self._region(when, position, tile.core),
        )

    def tasks(self) -> Iterator[Task]:
        """All of them, made as they are asked for."""
        return (self.task(index) for index in range(len(self)))

    def _region(self, t: int, c: int, box: Box) -> Region:
        parts = {"t": slice(t, t + 1), "c": slice(c, c + 1), "z": box[0], "y": box[1], "x": box[2]}
        return tuple(parts[axis] for axis in self.source.axes)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as JSON holds it: all but where it is put and on what it is computed."""
        return {name: value for name, value in self._document.items() if name not in ("output", "needs")}

    @cached_property
    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples as JSON has them
        return document

    @property
    def hash(self) -> str:
        """SHA-256 of `identity`: equal hashes, equal tasks."""
        return _sha256(self.identity)

    @property
    def job_hash(self) -> str:
        """SHA-256 of `identity` but for the tiles: equal ones, equal results, whatever they are cut into."""
        return _sha256({n: v for n, v in self.identity.items() if n not in ("tiling", "chunks", "shards")})

    def differences(self, earlier: Plan) -> list[str]:
        """What decides the result and is not as it was in an earlier plan, in words; empty where hashes are equal."""
        then = dict(_flat(earlier.identity))
        now = dict(_flat(self.identity))
        found = []
        for name in [*now, *(name for name in then if name not in now)]:
            if name in now and name in then and now[name] == then[name]:
                continue
            new, old = (json.dumps(values[name]) if name in values else "not there" for values in (now, then))
            found.append(
                "the input file has changed since" if name == "source fingerprint" else f"{name} is {new}, was {old}"
            )
        return found

    def with_tiles_of(self, earlier: Plan) -> Plan:
        """The same with the tiles of an earlier plan, which another amount of free memory may have cut otherwise."""
        return dataclasses.replace(
            self, tiling=earlier.tiling, chunks=earlier.chunks, shards=earlier.shards, needs=earlier.needs
        )

    def to_json(self) -> str:
        """The plan and its hash, as text."""
        return json.dumps({**self._document, "hash": self.hash}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote; InputError for anything else, or where the hash does not fit."""
        try:
            given = json.loads(text)
            said = given.pop("hash")
            source = Source(**{name: _tuples(value) for name, value in given.pop("source").items()})
            kernels = tuple(Kernel(k["sha256"], tuple(k["shape"]), _tuples(k["voxel_um"])) for k in given.pop("psfs"))
            tiling = Tiling(**{name: _tuples(value) for name, value in given.pop("tiling").items()})
            needs = given.pop("needs")
            needs["padded_shape"] = _tuples(needs["padded_shape"])
            rest = {name: value if name == "options" else _tuples(value) for name, value in given.items()}
            plan = cls(source=source, psfs=kernels, tiling=tiling, needs=Needs(**needs), **rest)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"This is no plan of gpudecon {__version__} ({type(error).__name__}: {error}); plan the job again."
            ) from error
        if plan.hash != said:
            raise InputError("The plan's hash does not fit what it says: it was edited; plan the job again.")
        return plan


def plan_job(
    job: Job,
    output: str | os.PathLike[str],
    *,
    ngff: Literal["0.4", "0.5"] = "0.5",
    memory: int | None = None,
    tile: Shape | None = None,
    backend: Backend | None = None,
) -> Plan:
    """Cut a job into tiles that fit the memory and cost least.

    ``memory`` is the most bytes to use: of the whole process on the CPU, of the device's memory on a GPU; None: what a
    GPU has free, but for a reserve, and half of what this machine has.  ``tile``, the core's (z, y, x), decides instead
    of the search; it is rounded up to whole write units.  ``backend`` is made from the job's device unless given.
    Raises `InputError` where no tile fits, where the job needs the whole stack in one tile and it does not fit, and
    where the output would replace the input.
    """
    check_apart(job.path, output)
    image = job.image
    backend = backend or get_backend(job.device, threads=job.threads)
    choice: Choice = choose_tile(job, backend, sharded=ngff == "0.5", memory=memory, tile=tile)
    return Plan(
        version=__version__,
        source=Source(
            path=located(job.path),
            given_axes=job.axes,
            axes=image.axes,
            shape=image.shape,
            dtype=image.dtype.name,
            voxel_um=image.voxel_um,
            fingerprint=fingerprint(job.path, job.axes),
        ),
        output=str(Path(output).absolute()),
        ngff=ngff,
        dtype=job.dtype,
        channels=job.channels,
        timepoints=job.timepoints,
        psfs=tuple(Kernel(psf.sha256, psf.shape, psf.voxel_um) for psf in job.psfs),
        method=job.method.name,
        options=asdict(job.method),
        settings={
            "background": job.background,
            "camera": None if job.camera is None else asdict(job.camera),
            "saturation": job.saturation,
            "stop": job.stop,
            "edges": job.edges if job.method.needs_psf else None,
        },
        tiling=choice.tiling,
        chunks=choice.chunks,
        shards=choice.shards,
        needs=Needs(
            device=backend.name,
            threads=job.threads,
            padded_shape=choice.padded_shape,
            buffers=choice.buffers,
            available=choice.available,
            limit=choice.limit,
        ),
    )


def _sha256(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined by spaces, with their values."""
    for name, value in values.items():
        words = f"{before}{name}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, words + " ")
        elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            for i, entry in enumerate(value):
                yield from _flat(entry, f"{words} {i} ")
        else:
            yield words, value


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
