"""The end of a run: what is made of the restored tiles, the record of how they came about, and the move into place."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpudecon._version import __version__
from gpudecon.engine.journal import Record
from gpudecon.engine.plan import Plan
from gpudecon.engine.workspace import Workspace
from gpudecon.errors import RunError, Stopped
from gpudecon.image import Region
from gpudecon.io.store import Store, checksum

Step = TypeVar("Step")


def finish(workspace: Workspace, *, verify: bool = False, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Make the output from the tiles, which are all restored, and move it into place; returns its provenance record.

    The steps are tasks of the journal, too, so that a resumed run goes on between them; `Stopped` where ``stop`` says
    True.  With ``verify`` all that was written is read again, and `RunError` says what differs from the journal: that
    is then taken off it, so that a resumed run does it again.
    """
    missing = len(workspace.plan) - len(workspace.journal.done("tile"))
    if missing:
        raise RunError(f"{missing} of {len(workspace.plan)} tiles are not restored yet; resume the run first.")
    record = _Finishing(workspace, verify, stop).output()
    workspace.commit()
    return record


class _Finishing:
    def __init__(self, workspace: Workspace, verify: bool, stop: Callable[[], bool]) -> None:
        self._workspace = workspace
        self._plan = workspace.plan
        self._verify = verify
        self._stop = stop
        self._tiles = Store.open(workspace.tiles)
        self._tiles.sweep()

    def output(self) -> dict[str, Any]:
        """Everything but the move."""
        plan = self._plan
        self._check("tile", lambda task: self._tiles.checksum(plan.task(task).target))
        ranges = _ranges(plan, list(self._workspace.journal.records("tile")))
        record = _provenance(self._workspace)
        scale, offset = 1.0, 0.0
        if plan.dtype == "uint16":
            offset = min(0.0, *(low for low, _ in ranges))
            scale = (max(0.0, *(high for _, high in ranges)) - offset) / 65535 or 1.0
            record["intensity"] = {"scale": scale, "offset": offset}
        ...
        return record

    def _all(self, kind: str, steps: Sequence[Step], carry_out: Callable[[Step], NDArray[Any]]) -> None:
        """Every step that is not in the journal yet."""
        done = self._workspace.journal.done(kind)
        for index in range(len(steps)):
            if index in done:
                continue
            if self._stop():
                raise Stopped(f"{kind} {index} of {len(steps)}")
            start = time.perf_counter()
            block = carry_out(steps[index])
            seconds = time.perf_counter() - start
            self._workspace.journal.add(
                Record(kind, index, checksum(block), float(block.min()), float(block.max()), round(seconds, 6))
            )

    def _check(self, kind: str, found: Callable[[int], str]) -> None:
        """Compare what is on the disk with what was put down when it was written there."""
        if not self._verify:
            return
        written: dict[int, set[str]] = {}
        for record in self._workspace.journal.records(kind):
            written.setdefault(record.task, set()).add(record.checksum)
        wrong = [task for task, checksums in sorted(written.items()) if _read_back(found, task) not in checksums]
        if wrong:
            self._workspace.journal.strike(kind, wrong)
            ...
            raise RunError(
                f"{len(wrong)} of {len(written)} {kind}s are not on the disk as they were written, the first of them "
                f"number {wrong[0]}; check the disk: resuming the run does them again."
            )
