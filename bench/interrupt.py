"""Runs that are killed again and again: the result is that of a run that nothing disturbs, and nothing else is left.

python bench/interrupt.py -o bench/results/interrupt.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from cases import random_psf
from rows import Rows, environment

import gpudecon as gd
from gpudecon.engine.workspace import Workspace, folder_of

VOXEL_UM = (0.2, 0.1, 0.1)
STOPPED = 75  # the exit status of a run that was asked to stop
PATIENCE = 300.0  # seconds
SIGNALS = ("SIGKILL", "SIGTERM")


class Trial:
    """A folder with an image and a PSF, the command that restores them, and its undisturbed result."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], tile: tuple[int, int, int], iterations: int) -> None:
        rng = np.random.default_rng(7)
        self.folder = folder
        image = rng.poisson(rng.gamma(0.3, 300, (2, *shape)) + 100).astype(np.uint16)
        gd.write(folder / "in.ome.zarr", gd.Image(image, "tzyx", VOXEL_UM))
        gd.write(folder / "psf.tif", gd.Image(random_psf((5, 9, 11), rng), "zyx", VOXEL_UM))
        self.words = [
            *("run", "in.ome.zarr", "--psf", "psf.tif", "--iterations", str(iterations)),
            *("--device", "cpu", "--tile", *map(str, tile)),
        ]
        process = self.start("whole.ome.zarr")
        self.await_work("whole.ome.zarr", process)
        start = time.monotonic()
        if (status := process.wait(PATIENCE)) != 0:
            raise SystemExit(f"The undisturbed run ended with status {status}: {self.said}")
        self.seconds = time.monotonic() - start  # from the first sign of work on
        self.expected = pixels(folder / "whole.ome.zarr")
        self.before = listing(folder)

    def start(self, output: str, *more: str) -> subprocess.Popen[bytes]:
        """The command as a process of its own; its messages are `said`."""
        command = [sys.executable, "-m", "gpudecon", *self.words, "-o", output, *more]
        with (self.folder.parent / f"{self.folder.name}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=self.folder, stderr=log)

    def await_work(self, output: str, process: subprocess.Popen[bytes]) -> None:
        """Until the process has the workspace for itself, or has ended."""
        folder = folder_of(self.folder / output)
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if (folder / "plan.json").exists() and f"process {process.pid} " in (folder / "lock").read_text():
                    return
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def stage(self, output: str) -> str:
        """How far an interrupted run came."""
        folder = folder_of(self.folder / output)
        if not (folder / "plan.json").exists():
            return "beginning"
        with Workspace.open(folder) as workspace:
            return "tiles" if workspace.remaining() else "finishing"

    def check(self, output: str) -> None:
        """Compare a finished run with the undisturbed one, and remove it."""
        if not all(np.array_equal(a, b) for a, b in zip(pixels(self.folder / output), self.expected, strict=True)):
            raise SystemExit(f"{output} is not what the undisturbed run has made.")
        found = listing(self.folder / output)
        if found != listing(self.folder / "whole.ome.zarr"):
            raise SystemExit(f"{output} holds other files: {found ^ listing(self.folder / 'whole.ome.zarr')}")
        shutil.rmtree(self.folder / output)
        if listing(self.folder) != self.before:
            raise SystemExit(f"Files were left behind: {listing(self.folder) ^ self.before}")


def interrupt(trial: Trial, number: signal.Signals, times: int, seed: int) -> dict[str, object]:
    """Send a signal at random moments ``times`` times, resuming after each, and check every run that gets to its end.

    One in five sessions ends at a moment within its first second, the others at one within the time that the
    undisturbed run works, counted from the first sign of work.
    """
    chance = random.Random(seed)
    stages: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    runs = sent = 0
    # one run comes to its end at least, also where all others ended before they had begun
    while sent < times or not runs or folder_of(trial.folder / "out.ome.zarr").exists():
        process = trial.start("out.ome.zarr", "--resume")
        early = chance.random() < 0.2
        moment = chance.uniform(0, 1 if early else trial.seconds)
        if not early:
            trial.await_work("out.ome.zarr", process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment if sent < times else PATIENCE)
        if process.poll() is None:
            process.send_signal(number)
            sent += 1
            status = process.wait(PATIENCE)
            statuses[status] += 1
            if status != 0:
                stages[trial.stage("out.ome.zarr")] += 1
                if status not in (-number, STOPPED, 128 + number):
                    raise SystemExit(f"A run that got {number.name} ended with status {status}: {trial.said}")
                continue
        elif process.returncode:
            raise SystemExit(f"A run that nobody disturbed ended with status {process.returncode}: {trial.said}")
        runs += 1
        trial.check("out.ome.zarr")
    return {"times": times, "runs": runs, "stages": dict(stages), "statuses": {str(k): n for k, n in statuses.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=SIGNALS)
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        size = ((6, 300, 270), (6, 96, 96), 4) if args.toy else ((8, 400, 360), (8, 96, 96), 6)
        trial = Trial(work, *size)
        for number in map(signal.Signals.__getitem__, args.signals):
            found = interrupt(trial, number, args.times, args.seed)
            rows.add(
                "interrupt", number.name, shape=(2, *size[0]), tile=size[1], seed=args.seed, is_identical=True, **found
            )
            print(rows.all[-1])
    return 0


def pixels(path: Path) -> list[np.ndarray]:
    """All levels."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return [np.asarray(group[name]) for name in sorted(group.array_keys())]


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


if __name__ == "__main__":
    sys.exit(main())
