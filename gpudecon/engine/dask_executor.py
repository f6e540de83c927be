"""Tasks of a workspace on the workers of a Dask cluster.

Only numbers of tasks go over the wire: the workers read plan, PSFs and image from the files they all see, and write
into the same store.  A worker that dies takes nothing with it, since its tasks are given to others and doing one twice
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpudecon._version import __version__
from gpudecon.engine.journal import Record
from gpudecon.engine.tile import forget, name_of, restore_tile
from gpudecon.engine.workspace import Workspace
from gpudecon.errors import GpudeconError, InputError, RunError, StoppedError

if TYPE_CHECKING:
    from distributed import Client, Future

IN_FLIGHT = 2  # tasks for each thread of each worker: one in hand, one to go on with
RETRIES = 2
PATIENCE = 60  # seconds


@dataclass(frozen=True)
class DaskExecutor:
    """An `Execute` of `run`: ``cluster`` opens a cluster for a workspace, as in `dask_cluster`.

    ``device`` and ``threads`` replace the planned ones on the workers, of which ``processes`` share this machine's
    memory; ``report`` is told the name and the record of every finished task; ``stop`` is asked between tasks.
    """

    cluster: Callable[[Workspace], AbstractContextManager[Client]]
    device: str | None = None
    threads: int | None = None
    processes: int = 1
    report: Callable[[str, Record], None] = lambda name, record: None
    stop: Callable[[], bool] = lambda: False

    def __call__(self, workspace: Workspace, tasks: Sequence[int]) -> None:
        """Carry out the tasks; the first that fails for good ends it, and is named."""
        if not tasks:
            return
        with self.cluster(workspace) as client:
            client.wait_for_workers(1)
            _check_workers(client, workspace)
            self._carry_out(client, workspace, tasks)

    def _carry_out(self, client: Client, workspace: Workspace, tasks: Sequence[int]) -> None:
        from distributed import as_completed

        folder = str(workspace.folder.absolute())
        waiting = iter(tasks)
        arriving = as_completed(loop=client.loop)
        under_way: dict[Future, int] = {}

        def submit() -> None:
            room = IN_FLIGHT * max(1, sum(client.nthreads().values())) - len(under_way)
            for index in islice(waiting, max(0, room)):
                future = client.submit(
                    restore_tile, folder, index, device=self.device, threads=self.threads, pure=False, retries=RETRIES
                )
                under_way[future] = index
                arriving.add(future)

        try:
            submit()
            for future in arriving:
                index = under_way.pop(future)
                name = name_of(workspace.plan, workspace.plan.task(index))
                self.report(name, _result(name, future))
                if not self.stop():
                    submit()
        finally:
            client.cancel(list(under_way))
            client.run(forget, on_error="ignore")
        if self.stop() and workspace.remaining():
            raise StoppedError("Stopped as asked.")
        _await_journal(workspace)


def _result(name: str, future: Future) -> Record:
    """What a task returned, or its error with its name."""
    from distributed import CancelledError, KilledWorker

    try:
        record: Record = future.result()
    except GpudeconError as error:
        raise type(error)(f"{name}: {error}") from error
    except KilledWorker as error:
        raise RunError(f"{name}: the workers that restored it died, one after the other ({error}).") from error
    except (CancelledError, OSError) as error:
        raise RunError(f"{name}: {error}.") from error
    except Exception as error:
        error.add_note(f"in {name}")
        raise
    return record


def _await_journal(workspace: Workspace) -> None:
    """A network's file system may show lines that other machines wrote only after a while."""
    latest = time.monotonic() + PATIENCE
    while workspace.remaining() and time.monotonic() < latest:
        time.sleep(1)


def _check_workers(client: Client, workspace: Workspace) -> None:
    """All have this gpudecon and see the workspace."""
    answers: dict[str, Any] = client.run(_version_where, str(workspace.folder.absolute()), on_error="return")
    for worker, version in answers.items():
        if version is None:
            raise InputError(
                f"The Dask worker {worker} does not see {workspace.folder}; output and input must be where all workers "
                "see them by the same path."
            )
        if version != __version__:
            raise InputError(
                f"The Dask worker {worker} has gpudecon {version}, this is {__version__}; install the same."
            )


def _version_where(folder: str) -> str | None:
    """The version of gpudecon, if the folder is there."""
    return __version__ if Path(folder).is_dir() else None
