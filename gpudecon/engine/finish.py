"""The end of a run: what is made of the restored tiles, the record of how they came about, and the move into place."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpudecon._version import __version__
from gpudecon.engine.journal import Record
from gpudecon.engine.plan import Plan
from gpudecon.engine.workspace import Workspace
from gpudecon.errors import InputError, RunError, StoppedError
from gpudecon.image import Image
from gpudecon.io import read
from gpudecon.io.ome_tiff import export
from gpudecon.io.pixels import Scaled
from gpudecon.io.pyramid import BLOCK_VOXELS
from gpudecon.io.staging import output_format
from gpudecon.io.store import Store, checksum
from gpudecon.psf.psf import PSF
from gpudecon.psf.quality_control import fwhm_um

Step = TypeVar("Step", covariant=True)


FEW_SAMPLES = 3  # of a PSF along an axis

# Kinds of tasks in the order in which they are done, and what they are called where there are several.
KINDS = {"tile": "tiles", "copy": "parts of the output", "level": "parts of the pyramid"}


def finish(workspace: Workspace, *, verify: bool = False, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Make the output from the tiles, which are all restored, and move it into place; returns its provenance record.

    The steps are tasks of the journal, too, so that a resumed run goes on between them, but for an OME-TIFF, which it
    begins anew; where ``stop`` says True `StoppedError` is raised.  With ``verify`` all that was written is read again,
    and `RunError` says what differs from the journal: that is then struck off, so that a resumed run does it again.
    """
    record = workspace.completed
    if record is None:
        missing = len(workspace.remaining())
        if missing:
            raise RunError(f"{missing} of {len(workspace.plan)} tiles are not restored yet; resume the run first.")
        try:
            record = _Finishing(workspace, verify, stop).output()
        except InputError as error:  # of a store of our own, not of what was given
            raise RunError(str(error)) from error
    workspace.commit(record)
    return record


class Steps(Protocol[Step]):
    """A sequence whose entries may be made when asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Step: ...


class _Finishing:
    def __init__(self, workspace: Workspace, verify: bool, stop: Callable[[], bool]) -> None:
        self._workspace = workspace
        self._plan = workspace.plan
        self._verify = verify
        self._stop = stop
        self._tiles = Store.open(workspace.tiles)

    def output(self) -> dict[str, Any]:
        """Everything but the move; returns the record."""
        plan, tiles = self._plan, self._tiles
        tiles.sweep()
        self._check("tile", lambda index: tiles.checksum(plan.task(index).target))
        restored = {record.task: record for record in self._workspace.journal.records("tile")}
        record = provenance(self._workspace, restored)
        windows = _windows(plan, restored)
        image = tiles.image
        if plan.dtype == "uint16":
            offset = min(0.0, min(low for low, _ in windows))
            scale = (max(0.0, max(high for _, high in windows)) - offset) / 65535 or 1.0
            record["intensity"] = {"scale": scale, "offset": offset}
            windows = [((low - offset) / scale, (high - offset) / scale) for low, high in windows]
            image = replace(image, data=Scaled(image.data, scale, offset))
        if output_format(plan.output) == "OME-TIFF":
            self._workspace.path.unlink(missing_ok=True)  # what an interrupted run left
            export(self._workspace.path, image, tiles.units(), record, self._stop)
            if self._verify:
                self._check_export(image)
        else:
            self._complete(tiles if plan.dtype == "float32" else self._copied(image), record, windows)
        return record

    def _check_export(self, image: Image) -> None:
        """Compare an OME-TIFF with the pixels that it was made from."""
        exported = read(self._workspace.path).data
        for region in self._tiles.units().joined(BLOCK_VOXELS):
            self._go_on()
            if not np.array_equal(np.asarray(exported[region]), np.asarray(image.data[region])):
                raise RunError(
                    f"{self._workspace.path.name} is not on the disk as it was written (at {region}); have the disk "
                    "checked. It is written anew when the run goes on."
                )

    def _copied(self, image: Image) -> Store:
        """The output of another type than the tiles'."""
        store = Store.open(self._workspace.path)
        units = store.units()
        self._all("copy", units, lambda region: store.copy(region, image.data))
        self._check("copy", lambda index: store.checksum(units[index]))
        return store

    def _complete(self, store: Store, record: dict[str, Any], windows: list[tuple[float, float]]) -> None:
        """The levels and the metadata of an OME-Zarr output."""
        levels = store.pyramid_tasks()
        self._all("level", levels, store.reduce)
        self._check("level", lambda index: checksum(store.read(levels[index].region, levels[index].level)))
        store.sweep()
        store.complete(record, windows)

    def _all(self, kind: str, steps: Steps[Step], carry_out: Callable[[Step], NDArray[Any]]) -> None:
        """Every step that is not in the journal yet, in their order."""
        done = self._workspace.journal.done(kind)
        for index in range(len(steps)):
            if index in done:
                continue
            self._go_on()
            start = time.perf_counter()
            block = carry_out(steps[index])
            self._workspace.journal.add(Record.of(kind, index, block, time.perf_counter() - start))

    def _check(self, kind: str, found: Callable[[int], str]) -> None:
        """Compare what is on the disk with what the journal says was written there."""
        if not self._verify:
            return
        journal = self._workspace.journal
        written: dict[int, set[str]] = {}
        for record in journal.records(kind):
            written.setdefault(record.task, set()).add(record.checksum)
        wrong = []
        for index, checksums in sorted(written.items()):
            self._go_on()
            if _read_back(found, index) not in checksums:
                wrong.append(index)
        if wrong:
            for later in list(KINDS)[list(KINDS).index(kind) + 1 :]:  # which were made from what is wrong
                journal.strike(later)
            # a level is made from the one above
            journal.strike(kind, None if kind == "level" else wrong)
            raise RunError(
                f"{len(wrong)} of {len(written)} {KINDS[kind]} are not on the disk as they were written (the first is "
                f"number {wrong[0]}); have the disk checked. They are struck off, and done again when the run goes on."
            )

    def _go_on(self) -> None:
        """Unless asked to stop."""
        if self._stop():
            raise StoppedError("Stopped as asked.")


def _read_back(found: Callable[[int], str], index: int) -> str | None:
    """The checksum of what is on the disk; None where it cannot be decoded."""
    try:
        return found(index)
    except Exception:  # noqa: BLE001 -- damaged chunks make codecs raise all kinds
        return None


def _windows(plan: Plan, restored: dict[int, Record]) -> list[tuple[float, float]]:
    """Lowest and highest value of each channel."""
    of_channel = len(plan) // len(plan.channels)
    windows = []
    for first in range(0, len(plan), of_channel):
        tiles = [restored[index] for index in range(first, first + of_channel)]
        windows.append((min(tile.low for tile in tiles), max(tile.high for tile in tiles)))
    return windows


def _widths(psf: PSF) -> list[float | None]:
    """Full widths at half maximum in um; None along an axis of so few samples that they do not tell."""
    if psf.voxel_um is None:
        return []
    widths = fwhm_um(psf.array, psf.voxel_um)
    return [round(width, 4) if n > FEW_SAMPLES else None for width, n in zip(widths, psf.shape, strict=True)]


def provenance(workspace: Workspace, restored: dict[int, Record]) -> dict[str, Any]:
    """What was done, with what, and how long it took: the seconds of all tiles, whoever restored them."""
    plan = workspace.plan
    devices = workspace.devices
    record: dict[str, Any] = {
        "version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": Path(plan.source.path).name,
        "method": plan.method,
        "options": plan.options,
        "settings": {
            **plan.settings,
            "channels": list(plan.channels),
            "timepoints": list(plan.timepoints),
            "dtype": plan.dtype,
        },
        "plan": {
            "hash": plan.hash,
            "job_hash": plan.job_hash,
            "tiles": len(plan.tiling),
            "tile": list(plan.tiling.core_shape),
            "halo": list(plan.tiling.halo),
            "padded_shape": list(plan.needs.padded_shape),
        },
        "device": devices[0] if devices else {},
    }
    if len(devices) > 1:
        record["devices"] = devices
    if plan.psfs:
        record["psf"] = [
            {
                **({"origin": dict(psf.origin)} if psf.origin else {}),
                "sha256": kernel.sha256,
                "shape": list(kernel.shape),
                "voxel_um": list(kernel.voxel_um or ()),
                "fwhm_um": _widths(psf),
            }
            for kernel, psf in zip(plan.psfs, workspace.psfs, strict=True)
        ]
    if plan.settings["stop"] != "fixed":
        record["stopped"] = [
            {"channel": task.channel, "timepoint": task.timepoint, "iterations": restored[task.index].iterations}
            for task in map(plan.task, range(0, len(plan), len(plan.tiling)))
        ]
    record["found"] = [{"channel": channel, **found.summary()} for channel, found in workspace.constants.items()]
    record["found"] += [
        {"channel": task.channel, "timepoint": task.timepoint, **restored[task.index].found}
        for task in map(plan.task, range(0, len(plan), len(plan.tiling)))
        if restored[task.index].found
    ]
    said = [
        *workspace.remarks,
        *workspace.warnings,
        *(text for _, tile in sorted(restored.items()) for text in tile.said),
    ]
    record["warnings"] = list(dict.fromkeys(said))
    record["seconds"] = round(sum(tile.seconds for tile in restored.values()), 3)
    return record
