"""SLURM: the tasks of a workspace as a job array, and a job that finishes the output when the array has ended.

Element e of N does tasks e, e + N, e + 2N, ... that are not in the journal, so elements need not know of each other and
any of them may be done again.  An element that is asked to stop, because its time is nearly over or it is pre-empted,
finishes the tile in hand and goes back into the queue.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gpudecon.errors import GpudeconError, InputError, RunError

MOST_ELEMENTS = 1000  # SLURM's MaxArraySize is 1001 unless a cluster says otherwise
STOPPED = 75  # exit status of a worker that was asked to stop before its tasks were done: EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True)
class Resources:
    """What a job asks SLURM for; None leaves it to the cluster's defaults.

    ``gres`` is for the elements alone, such as "gpu:1".  ``extra`` are further options of sbatch.  ``grace`` seconds
    before the end of its time a job begins no further tile.
    """

    partition: str | None = None
    gres: str | None = None
    time: str | None = None
    mem: str | None = None
    cpus: int | None = None
    extra: tuple[str, ...] = ()
    grace: int = 120

    def __post_init__(self) -> None:
        wrong = [option for option in self.extra if not option.startswith("-")]
        if wrong:
            raise InputError(f"{wrong[0]!r} is no option of sbatch; give options as --name=value.")
        if any("\n" in str(value) for value in (self.partition, self.gres, self.time, self.mem, *self.extra)):
            raise InputError("An option of sbatch cannot have several lines.")

    def options(self, *, with_gres: bool) -> list[str]:
        """Options of sbatch."""
        named = {
            "--partition": self.partition,
            "--gres": self.gres if with_gres else None,
            "--time": self.time,
            "--mem": self.mem,
            "--cpus-per-task": self.cpus,
        }
        return [f"{name}={value}" for name, value in named.items() if value is not None] + list(self.extra)


@dataclass(frozen=True)
class Array:
    """The scripts of a run: ``folder`` is its workspace, ``elements`` is N, ``concurrent`` how many run at once.

    ``command`` starts gpudecon on the nodes, as words for the shell; ``device`` and ``threads`` are for them;
    with ``verify`` the last job reads all that was written again.
    """

    folder: Path
    output: Path
    elements: int
    resources: Resources
    command: str
    device: str = "auto"
    threads: int | None = None
    concurrent: int | None = None
    verify: bool = False

    def work(self, share: str) -> str:
        """What does a share, a word such as 0/16, for the shell."""
        threads = "" if self.threads is None else f" --threads {self.threads}"
        return f"{self.command} work {shlex.quote(str(self.folder))} --share {share} --device {self.device}{threads}"

    def finish(self) -> str:
        """What makes the output of all shares, for the shell."""
        return f"{self.command} finish {shlex.quote(str(self.folder))}{' --verify' * self.verify}"

    def script(self, chosen: Sequence[int]) -> str:
        """The script of the ``chosen`` elements."""
        limit = "" if self.concurrent is None else f"%{self.concurrent}"
        options = [
            f"--job-name=gpudecon-{_plain(self.output.name)}",
            f"--array={_ranges(chosen)}{limit}",
            f"--output={log_path(self.folder / 'slurm' / 'element')}-%a.log",
            "--open-mode=append",
            "--requeue",
            f"--signal=B:USR1@{self.resources.grace}",
            *self.resources.options(with_gres=True),
        ]
        return f"""{_head(options)}
trap 'asked=yes; kill -USR1 "$worker"' USR1 TERM
{self.work(f'"$SLURM_ARRAY_TASK_ID/{self.elements}"')} &
worker=$!
while :; do # a signal ends wait, but not the worker
  wait "$worker"
  status=$?
  kill -0 "$worker" 2>/dev/null || break
done
# Stopped after a tile, or (138, 143) before the first, but not cancelled: its time ends, or another job needs the node.
case "$asked $status" in "yes {STOPPED}" | "yes 138" | "yes 143")
  if scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then scontrol requeue "$SLURM_JOB_ID"; fi ;;
esac
exit "$status"
"""

    def finish_script(self) -> str:
        """The script of the job that waits for all elements, however they end, and says what is missing."""
        options = [
            f"--job-name=gpudecon-finish-{_plain(self.output.name)}",
            f"--output={log_path(self.output)}.slurm.log",
            "--open-mode=append",
            "--requeue",
            *self.resources.options(with_gres=False),
        ]
        return f"{_head(options)}\nexec {self.finish()}\n"

    def submit(self, chosen: Sequence[int]) -> list[str]:
        """Hand the ``chosen`` elements, if any, and what follows them to SLURM; the numbers of the jobs.

        Jobs may begin and end before this returns, so the workspace must not be locked meanwhile.
        """
        self._jobs.parent.mkdir(exist_ok=True)
        self._note([])
        jobs = [_sbatch(self.script(chosen))] if chosen else []
        self._note(jobs)
        try:
            jobs.append(_sbatch(self.finish_script(), *(f"--dependency=afterany:{job}" for job in jobs)))
        except GpudeconError as error:
            if not jobs:
                raise
            raise type(error)(
                f"{error} The array is in the queue as job {jobs[0]}; when it has ended, make the output by "
                "gpudecon submit with the same options and --resume."
            ) from error
        self._note(jobs)
        return jobs

    @property
    def jobs(self) -> list[str]:
        """Those of the latest submission."""
        return self._jobs.read_text().split() if self._jobs.exists() else []

    @property
    def _jobs(self) -> Path:
        return self.folder / "slurm" / "jobs"

    def _note(self, jobs: Sequence[str]) -> None:
        with suppress(FileNotFoundError):  # the last job has ended already, and has removed the folder
            self._jobs.write_text(" ".join(jobs))

    def check_idle(self) -> None:
        """InputError where jobs of an earlier submission are still in the queue."""
        if jobs := self.jobs:
            queue = subprocess.run(["squeue", "--noheader", "--format=%A"], capture_output=True, text=True)
            if queue.returncode == 0 and (waiting := sorted(set(jobs) & set(queue.stdout.split()))):
                raise InputError(
                    f"Jobs of this run are still in the queue ({' '.join(waiting)}); wait for them, or end them by "
                    f"scancel {' '.join(jobs)}."
                )


def share(element: int, elements: int, tasks: int) -> range:
    """The tasks of an element."""
    return range(element, tasks, elements)


def elements_left(elements: int, tasks: int, done: Collection[int]) -> list[int]:
    """The elements that have something to do."""
    held = [0] * min(elements, tasks)
    for task in done:
        held[task % elements] += 1
    return [e for e, count in enumerate(held) if count < len(share(e, elements, tasks))]


def _head(options: Sequence[str]) -> str:
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {quoted(option)}" for option in options)])


def quoted(option: str) -> str:
    """As sbatch reads it: words in double quotes."""
    return option if re.fullmatch(r"[^\s\"'#\\]+", option) else '"' + re.sub(r'(["\\])', r"\\\1", option) + '"'


def log_path(path: Path) -> str:
    """In a path for --output, where % begins a replacement."""
    return str(path).replace("%", "%%")


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as SLURM writes them: 0-3,7."""
    runs = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(runs)


def _sbatch(script: str, *options: str) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", *options], input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(
            "There is no sbatch here; submit from a login node of the cluster, or see the scripts by --dry-run."
        ) from None
    if done.returncode:
        raise RunError(f"sbatch refused the job: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]  # JOB or JOB;CLUSTER
