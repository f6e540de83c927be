"""A run: the tasks of a plan carried out, by this process or by others, and the output finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpudecon.backend import Array
from gpudecon.deconvolve import Info
from gpudecon.engine.conveyor import Busy, Conveyor
from gpudecon.engine.finish import finish
from gpudecon.engine.job import Job
from gpudecon.engine.plan import Plan
from gpudecon.engine.tile import Worker, name_of
from gpudecon.engine.workspace import Workspace, begin
from gpudecon.errors import InputError, RunError, Stopped

AHEAD, BEHIND = 2, 2  # tiles that are read, or restored and not yet written, beside the one in hand; see `tile_buffers`
DIVERGENCE_EVERY = 10  # iterations, where a stack is one tile and somebody watches; each costs a blur


class Progress(Protocol):
    """Whoever watches: told how many iterations are to come, and after each of them how it went."""

    def expect(self, iterations: int) -> None: ...
    def __call__(self, name: str, iteration: int, estimate: Array, info: Info) -> None: ...


Execute = Callable[[Workspace, Sequence[int]], Busy | None]
"""Carries out the given tasks of a workspace's plan and returns when their lines are in the journal, or raises."""


@dataclass(frozen=True)
class Outcome:
    """The provenance record of the output, and how busy this process was (None: others did the work)."""

    record: dict[str, Any]
    busy: Busy | None


def run(
    job: Job,
    plan: Plan,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verify: bool = False,
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
        Go on with an interrupted run of the same plan; begin anew where there is none.
    overwrite
        Replace an existing output, and give up an interrupted run; the output stays until it is replaced.
    verify
        Read what was written again and compare checksums before the output is moved into place.
    execute
        Who carries out the tasks: `in_this_process` unless given.
    stop
        Asked between tiles; once it says True, what is in hand is finished and `Stopped` is raised.
    command
        What to give to go on after an interruption, for the note that is then added to the error.

    A run that fails before its first tile is done, or for the input's sake, leaves nothing behind; any other keeps what
    is done and says so.
    """
    resumed = ...
