"""The conveyor: reading, computing and writing one after the other against overlapped, and against the slowest alone.

python bench/conveyor.py -o bench/results/conveyor.jsonl
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import random_psf
from rows import Rows, environment

import gpudecon as gd
from gpudecon.engine.conveyor import Conveyor
from gpudecon.engine.job import Job
from gpudecon.engine.memory import AHEAD, BEHIND
from gpudecon.engine.plan import Plan, plan_job
from gpudecon.engine.run import prepare
from gpudecon.engine.tile import Worker
from gpudecon.methods import make_method

VOXEL_UM = (0.2, 0.1, 0.1)
SLEEP = 0.05  # seconds; for stages that need no processor


class Asleep:
    """A worker whose stages only wait: what the conveyor itself costs, on a machine with any number of cores."""

    def __init__(self, reading: float, computing: float, writing: float) -> None:
        self.read: Callable[[Any], Any] = lambda task: time.sleep(reading)
        self.compute: Callable[[Any, Any], Any] = lambda task, held: time.sleep(computing)
        self.write: Callable[[Any, Any], Any] = lambda task, result: time.sleep(writing)


def measured(worker: Any, tasks: list[Any]) -> dict[str, float]:
    """Seconds of all tasks: each stage alone, one after the other, and overlapped."""
    conveyor = Conveyor(worker.read, worker.compute, worker.write, ahead=AHEAD, behind=BEHIND)
    worker.write(tasks[0], worker.compute(tasks[0], worker.read(tasks[0])))  # plans and files are made
    alone = {"reading": 0.0, "computing": 0.0, "writing": 0.0}
    start = time.perf_counter()
    for task in tasks:
        moments = [time.perf_counter()]
        held = worker.read(task)
        moments.append(time.perf_counter())
        result = worker.compute(task, held)
        moments.append(time.perf_counter())
        worker.write(task, result)
        moments.append(time.perf_counter())
        for name, seconds in zip(alone, np.diff(moments), strict=True):
            alone[name] += float(seconds)
    serial = time.perf_counter() - start
    overlapped = conveyor.run(tasks).seconds
    return {**alone, "serial": serial, "overlapped": overlapped}


def add(rows: Rows, name: str, rounds: list[dict[str, float]], **fields: Any) -> None:
    """The median of the ratios of each round, in which all was measured in turn."""
    slowest = [max(r["reading"], r["computing"], r["writing"]) for r in rounds]
    middle = {key: float(np.median([r[key] for r in rounds])) for key in rounds[0]}
    rows.add(
        "conveyor",
        name,
        **fields,
        **{f"{key}_seconds": seconds for key, seconds in middle.items()},
        of_slowest=float(np.median([s / r["overlapped"] for s, r in zip(slowest, rounds, strict=True)])),
        gain=float(np.median([r["serial"] / r["overlapped"] for r in rounds])),
        rounds=len(rounds),
    )
    print(rows.all[-1])


def planned(folder: Path, shape: tuple[int, int, int], tile: tuple[int, int, int], iterations: int) -> tuple[Job, Plan]:
    rng = np.random.default_rng(5)
    gd.write(folder / "in.ome.zarr", gd.Image(rng.poisson(100, shape).astype(np.uint16), "zyx", VOXEL_UM))
    image, psf = gd.read(folder / "in.ome.zarr"), gd.PSF(random_psf((5, 9, 9), rng), VOXEL_UM)
    method = make_method("rl", {"iterations": iterations})
    job = Job(image, str(folder / "in.ome.zarr"), (psf,), method, background=50.0, device="cpu", threads=1)
    return job, plan_job(job, folder / "out.ome.zarr", tile=tile)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    count, repeats = (6, 1) if args.toy else (30, 5)
    for limiting, parts in {"reading": (3, 2, 1), "computing": (1, 3, 2), "writing": (2, 1, 3)}.items():
        worker = Asleep(*(SLEEP / 3 * part for part in parts))
        rounds = [measured(worker, list(range(count))) for _ in range(repeats)]
        add(rows, f"asleep, limited by {limiting}", rounds, tasks=count)
    size = ((8, 200, 180), (8, 64, 64)) if args.toy else ((32, 512, 1024), (32, 256, 256))
    for iterations in (2, 8):
        with tempfile.TemporaryDirectory(dir=args.output.parent) as folder:
            job, plan = planned(Path(folder), *size, iterations)
            with prepare(job, plan) as workspace:
                worker, tasks = Worker(workspace), [plan.task(i) for i in range(len(plan))]
                rounds = [measured(worker, tasks) for _ in range(repeats)]
            shape = size[0]
            add(rows, f"rl, {iterations} iterations", rounds, shape=shape, tile=size[1], tasks=len(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
