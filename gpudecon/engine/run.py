"""A run: the tasks of a plan carried out, by this process or by others, and the output finished."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpudecon.backend import Array, Transfer
from gpudecon.deconvolve import Info
from gpudecon.engine.conveyor import Busy, Conveyor
from gpudecon.engine.finish import finish
from gpudecon.engine.job import Job
from gpudecon.engine.memory import AHEAD, BEHIND
from gpudecon.engine.plan import Plan, Task
from gpudecon.engine.remarks import noted_warnings
from gpudecon.engine.seams import Seam
from gpudecon.engine.tile import Restored, Worker, name_of, part_of
from gpudecon.engine.workspace import Workspace, begin, is_begun, keep_psfs, tiles_path
from gpudecon.errors import GpudeconError, GpudeconWarning, InputError, RunError, StoppedError
from gpudecon.io import check_output, read
from gpudecon.io.metadata import check_describable
from gpudecon.io.store import Store
from gpudecon.psf.psf import as_psf

DIVERGENCE_EVERY = 10  # iterations, where a stack is one tile and somebody watches; each costs a blur


class Progress(Protocol):
    """Whoever watches: told how many iterations are to come, and after each of them how it went."""

    def expect(self, iterations: int, remark: str = "") -> None: ...
    def __call__(self, name: str, iteration: int, estimate: Array, info: Info) -> None: ...


Execute = Callable[[Workspace, Sequence[int]], object]
"""Carries out these tasks of a workspace's plan, and returns when all of them are in its journal, or raises."""


@dataclass(frozen=True)
class Outcome:
    """The provenance record of the output, how busy this process was (None where others did the work), the seams that
    were looked at, and whether there was nothing left to do, so that nothing was checked either.
    """

    record: dict[str, Any]
    busy: Busy | None = None
    seams: tuple[Seam, ...] = ()
    was_complete: bool = False


def run(
    job: Job,
    plan: Plan,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verify: bool = False,
    seams: bool = False,
    execute: Execute | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "the same run with resume=True",
) -> Outcome:
    """Carry out a plan; the output appears in its place when it is complete.

    Parameters
    ----------
    job, plan
        What is to be done, and `plan_job` of it.
    resume
        Go on with an interrupted run of the same plan; begin anew where there is none, and do nothing where the output
        is there already and was made by this plan.
    overwrite
        Replace an existing output, and give up an interrupted run; the output stays until it is replaced.
    verify
        Read what was written again and compare checksums before the output is moved into place.
    seams
        Restore some places between tiles again with twice the halo, and warn where the result depends on it.
    execute
        Who carries out the tasks; None: this process (`in_this_process`).
    stop
        Asked between tiles; once it says True, what is in hand is finished and `StoppedError` is raised.
    command
        How to go on after an interruption, for the sentence that says so.

    A run that fails before its first tile is done leaves nothing behind; any other keeps what is done, and its error
    says how to go on, or, where the input is at fault, where the tiles are.
    """
    if resume and (record := made(plan)) is not None:
        return Outcome(record, was_complete=True)
    with prepare(job, plan, resume=resume, overwrite=overwrite) as workspace, _kept(workspace, command):
        if workspace.completed is not None:  # and moved, perhaps, before the process ended
            return Outcome(finish(workspace), was_complete=True)
        tasks = workspace.remaining()
        # a resumed run has the tiles of the earlier plan, and computes where it is told to now
        worker = partial(Worker, workspace, job.image, device=plan.needs.device, threads=plan.needs.threads)
        busy = None
        if execute is not None:
            with workspace.shared():
                execute(workspace, tasks)
        elif tasks:
            busy = in_this_process(worker(), tasks, progress, stop)
        found = _checked_seams(worker()) if seams else ()
        return Outcome(finish(workspace, verify=verify, stop=stop), busy, found)


def _checked_seams(worker: Worker) -> tuple[Seam, ...]:
    """Those of all channels; a warning where tiles do not fit together."""
    plan = worker.plan
    found = []
    for channel in plan.channels if len(plan.tiling) > 1 else ():
        of_channel = worker.seams(channel)
        loose = [seam.difference for seam in of_channel if not seam.is_tight]
        if loose:
            warnings.warn(
                f"{part_of(plan, channel)}: at {len(loose)} of {len(of_channel)} places between tiles twice the halo "
                f"changes the result by up to {max(loose):.2g} of the local value; give larger tiles, or the memory "
                "for one.",
                GpudeconWarning,
                stacklevel=3,
            )
        found += of_channel
    return tuple(found)


def made(plan: Plan) -> dict[str, Any] | None:
    """The record of the output, if this plan has made it and nothing is left to be done."""
    if not Path(plan.output).exists() or is_begun(plan.output):
        return None
    record = read(plan.output).provenance
    return record if record.get("plan", {}).get("job_hash") == plan.job_hash else None


def prepare(job: Job, plan: Plan, *, resume: bool = False, overwrite: bool = False) -> Workspace:
    """The workspace of a plan, new with all that is needed in it, or resumed; other runs are kept out until it closes.

    Raises `InputError` where another run is at work or in the way, and where what is to be resumed was another plan.
    """
    described = job.image.select(plan.channels, plan.timepoints)
    check_describable(described)

    def fill(folder: Path) -> list[str]:
        tiles = tiles_path(plan)
        is_output = tiles.name == Path(plan.output).name
        layout: dict[str, Any] = {"ngff": plan.ngff, "chunk": plan.chunks, "shard": plan.shards}
        with noted_warnings() as said:
            keep_psfs(folder, [as_psf(psf, len(job.image.spatial_axes), job.image.voxel_um) for psf in job.psfs])
            Store.create(tiles, described, dtype=np.float32, pyramid=is_output, **layout)
            if not is_output and check_output(plan.output, overwrite) == "OME-Zarr":
                Store.create(folder / Path(plan.output).name, described, dtype=plan.dtype, **layout)
        return [*job.remarks, *said]

    return begin(plan, fill, resume=resume, overwrite=overwrite)


def in_this_process(
    worker: Worker,
    tasks: Sequence[int],
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Busy:
    """Carry out these tasks, reading ahead and writing behind; `StoppedError` where ``stop`` ended it early."""
    plan = worker.plan
    name = partial(name_of, plan)

    def compute(task: Task, block: Transfer) -> Restored:
        if progress is None:
            return worker.compute(task, block)
        every = DIVERGENCE_EVERY if len(plan.tiling) == 1 else 0
        return worker.compute(task, block, partial(progress, name(task)), divergence_every=every)

    _decide(worker, tasks, progress)
    conveyor = Conveyor(worker.read, compute, worker.write, name, ahead=AHEAD, behind=BEHIND)
    busy = conveyor.run(map(plan.task, tasks), stop)
    if not worker.workspace.journal.done("tile").issuperset(tasks):  # other workers may do other tasks
        raise StoppedError("Stopped as asked.")
    return busy


def _decide(worker: Worker, tasks: Sequence[int], progress: Progress | None) -> None:
    """Decide the constants of all channels, lest one of them shows only after hours that it cannot be restored."""
    plan = worker.plan
    left = Counter(plan.task(index).channel for index in tasks)
    for channel, count in left.items():
        constants = worker.constants(channel)
        if progress is None:
            continue
        if plan.settings["stop"] == "fixed":
            progress.expect(count * int(plan.options.get("iterations", 1)))
        elif constants is not None:
            chosen = constants.iterations
            progress.expect(count * chosen, f"{part_of(plan, channel)}: {chosen} iterations chosen")


@contextmanager
def _kept(workspace: Workspace, command: str) -> Iterator[None]:
    """After an error keep what is done and say so, or leave nothing behind."""
    try:
        yield
    except BaseException as error:
        done = len(workspace.journal.done("tile"))
        note = f"{done} of {len(workspace.plan)} tiles are done and kept"
        if done == 0:
            workspace.discard()
            note = "Nothing was left behind."
        elif isinstance(error, InputError):
            note += f" in the OME-Zarr {workspace.tiles}; if the input can stay as it is, go on with: {command}"
        else:
            note += f"; go on with: {command}"
        if isinstance(error, OSError):
            said = f"Writing {workspace.plan.output} failed: {error.strerror or error}."
            raise RunError(f"{said} {note}") from error
        if done == 0:
            raise
        if isinstance(error, GpudeconError):
            raise type(error)(f"{error} {note}") from error
        error.add_note(note)
        raise
