"""Carrying out a job: every chosen channel and time point of an image restored into an output file."""

from __future__ import annotations

import datetime
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon._version import __version__
from gpudecon.backend import Array
from gpudecon.deconvolve import Deconvolver, Info
from gpudecon.engine.job import Job
from gpudecon.errors import InputError, RunError
from gpudecon.image import Region
from gpudecon.io import Sink, open_sink

DIVERGENCE_EVERY = 10  # iterations; each costs a blur

Progress = Callable[[str, int, Array, Info], None]
"""Called after every iteration with the volume's name, the iteration, the estimate and its `Info`."""


def restore(
    job: Job, output: str | Path, *, overwrite: bool = False, ngff: str = "0.5", progress: Progress | None = None
) -> dict[str, Any]:
    """Carry out the job; the output appears when it is complete.  Returns its provenance record."""
    start = time.perf_counter()
    described = job.image.select(job.channels, job.timepoints)
    with (
        noted_warnings() as said,
        _disk_errors(output),
        open_sink(output, described, dtype=np.dtype(job.dtype), overwrite=overwrite, ngff=ngff) as sink,
    ):
        record: dict[str, Any] = {}
        if job.dtype == "uint16":
            record["intensity"] = _write_scaled(job, described.shape, sink, progress, record, Path(output).parent)
        else:
            for region, block in _restored(job, progress, record):
                sink.write(region, block)
        record = _provenance(job, record, said, time.perf_counter() - start)
        sink.finalize(record)
    return record


def _restored(
    job: Job, progress: Progress | None, record: dict[str, Any]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Each restored stack with its place in the output; one `Deconvolver` at a time is alive."""
    decon: Deconvolver | None = None
    for position, channel in enumerate(job.channels):
        psf = job.psfs[position % len(job.psfs)] if job.psfs else None
        if decon is None or len(job.psfs) > 1:
            decon = None  # its memory is needed for the next one
            decon = Deconvolver(
                job.image.spatial_shape,
                psf,
                job.method,
                background=job.background,
                camera=job.camera,
                saturation=job.saturation,
                stop=job.stop,
                edges=job.edges,
                device=job.device,
                threads=job.threads,
                voxel_um=job.image.voxel_um,
            )
            record["device"] = decon.backend.describe()
            if psf is not None:
                record.setdefault("psf", []).append(
                    {"sha256": psf.sha256, "shape": list(psf.shape), "voxel_um": list(psf.voxel_um or ())}
                )
        for when, timepoint in enumerate(job.timepoints):
            name = _name(job, timepoint, channel)
            done = 0

            def report(iteration: int, estimate: Array, info: Info, name: str = name) -> None:
                nonlocal done
                done = iteration
                if progress is not None:
                    progress(name, iteration, estimate, info)

            try:
                image = job.image.volume(timepoint, channel)
                block = decon(image, report, divergence_every=0 if progress is None else DIVERGENCE_EVERY)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
            if job.stop == "auto":
                chosen = {"channel": channel, "timepoint": timepoint, "iterations": done}
                record.setdefault("stopped", []).append(chosen)
            index = {"t": slice(when, when + 1), "c": slice(position, position + 1)}
            region = tuple(index.get(a, slice(0, n)) for a, n in zip(job.image.axes, job.image.shape, strict=True))
            yield (
                region,
                block.reshape([1 if a in "tc" else n for a, n in zip(job.image.axes, job.image.shape, strict=True)]),
            )


def _write_scaled(
    job: Job, shape: tuple[int, ...], sink: Sink, progress: Progress | None, record: dict[str, Any], folder: Path
) -> dict[str, float]:
    """Write uint16 with one scale for everything, which is known only at the end: float32 waits in an unnamed file.

    It lies in the output's folder, since others may be small, and has its space from the start: where the disk is full,
    a write into the map would kill the process.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
        waiting = np.memmap(file, np.float32, "w+", shape=shape)
        regions = []
        low, high = 0.0, 0.0
        for region, block in _restored(job, progress, record):
            waiting[region] = block
            regions.append(region)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        scale = (high - low) / 65535 or 1.0
        for region in regions:
            sink.write(region, np.rint((waiting[region].astype(np.float64) - low) / scale).astype(np.uint16))
    return {"scale": scale, "offset": low}


def _provenance(job: Job, record: dict[str, Any], said: list[str], seconds: float) -> dict[str, Any]:
    return {
        "version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": job.source,
        "method": job.method.name,
        "options": asdict(job.method),
        "settings": {
            "background": job.background,
            "camera": None if job.camera is None else asdict(job.camera),
            "saturation": job.saturation,
            "stop": job.stop,
            "edges": job.edges if job.method.needs_psf else None,
            "channels": list(job.channels),
            "timepoints": list(job.timepoints),
            "dtype": job.dtype,
        },
        **record,
        "warnings": [*job.remarks, *said],
        "seconds": round(seconds, 3),
    }


def _name(job: Job, timepoint: int, channel: int) -> str:
    parts = [job.source]
    if job.image.sizes["c"] > 1:
        parts.append(f"channel {channel}")
    if job.image.sizes["t"] > 1:
        parts.append(f"time point {timepoint}")
    return ", ".join(parts)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect the texts of our warnings for the record, and still show them."""
    said: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        said.append(str(message))
        show(message, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.showwarning = note
        yield said


@contextmanager
def _disk_errors(output: str | Path) -> Iterator[None]:
    """A full or failing disk is a failed run, said in a sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"Writing {output} failed: {error.strerror or error}; nothing was left behind.") from error
