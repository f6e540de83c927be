"""What planning costs: time and memory of `gpudecon plan` for an image of a million tiles.

python bench/plan.py -o bench/results/plan.jsonl
python bench/plan.py --quick -o /tmp/plan.jsonl

The image is an OME-Zarr store without a single chunk.  ``seconds`` on the clock, ``cpu_seconds`` of the processor and
``bytes`` (resident, at most) are of the whole process, the interpreter's start included; ``json_bytes`` is the length
of what it prints.  The tile is given, or searched for a memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from rows import Rows, environment

import gpudecon as gd
from gpudecon.image import Blank
from gpudecon.io.store import Store

VOXEL_UM = (0.2, 0.1, 0.1)


def planned(folder: Path, *options: str) -> tuple[float, float, int, str]:
    """(seconds, those of the processor, most resident bytes, JSON) of the command."""
    words = "plan image.ome.zarr -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --device cpu --json"
    command = [sys.executable, "-m", "gpudecon", *words.split(), *options]
    start = time.perf_counter()
    with (folder / "plan.json").open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, (folder / "plan.json").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a hundred tiles")
    args = parser.parse_args()
    side = 10 if args.quick else 1000
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shape = (64, 256 * side, 256 * side)
        Store.create(
            folder / "image.ome.zarr", gd.Image(Blank(shape, np.dtype("u2")), "zyx", VOXEL_UM), pyramid=False
        ).complete({})
        z, y, x = (np.arange(n) - n // 2 for n in (9, 15, 15))
        psf = np.exp(-((z[:, None, None] / 1.8) ** 2 + (y[:, None] / 1.9) ** 2 + (x / 2.1) ** 2))
        tifffile.imwrite(folder / "psf.tif", psf.astype(np.float32), photometric="minisblack")
        planned(folder, "--tile", "64", "256", "256")  # measures the speed of this machine, which is kept
        for name, options in {"tile": ("--tile", "64", "256", "256"), "memory": ("--memory", "1GiB")}.items():
            seconds, processor, resident, text = planned(folder, *options)
            tiles = json.loads(text)["tiles"]
            row = {"seconds": seconds, "cpu_seconds": processor, "bytes": resident, "json_bytes": len(text)}
            rows.add("plan", name, shape=shape, tiles=tiles, **row)


if __name__ == "__main__":
    main()
