"""A volume larger than memory: peak memory of restoring it by tiles, of one twice as large, and tiled against whole.

python bench/large.py -o bench/results/large.jsonl     # writes 24 GB beside the output, and removes them
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from subprocess import Popen

import numpy as np
import tifffile
from rows import Rows, environment

import gpudecon as gd
from gpudecon.engine.seams import brightness, relative_difference
from gpudecon.image import Blank
from gpudecon.io.store import Store

VOXEL_UM = (0.2, 0.1, 0.1)
PSF = (9, 15, 15)
Shape = tuple[int, int, int]


def write_volume(path: Path, shape: Shape, block: Shape = (64, 512, 512)) -> None:
    """Uint16 with structure everywhere and no two blocks alike, written block by block."""
    rng = np.random.default_rng(11)
    block = tuple(map(min, block, shape))
    store = Store.create(path, gd.Image(Blank(shape, np.dtype("u2")), "zyx", VOXEL_UM), chunk=block, pyramid=False)
    light = rng.gamma(0.3, 300, block)
    for axis in range(3):
        light = (np.roll(light, 1, axis) + 2 * light + np.roll(light, -1, axis)) / 4
    base = rng.poisson(light + 100).astype(np.uint16)
    for region in store.units():
        size = [part.stop - part.start for part in region]
        moved = np.roll(base, rng.integers(0, block), (0, 1, 2)) + np.uint16(rng.integers(0, 20))
        store.write(region, moved[tuple(slice(n) for n in size)])
    store.complete({})


def write_psf(path: Path) -> None:
    z, y, x = (np.arange(n) - n // 2 for n in PSF)
    psf = np.exp(-((z[:, None, None] / 1.8) ** 2 + (y[:, None] / 1.9) ** 2 + (x / 2.1) ** 2))
    tifffile.imwrite(path, psf.astype(np.float32), photometric="minisblack")


def restore(folder: Path, name: str, output: str, *more: str) -> tuple[float, int]:
    """(seconds, most resident bytes) of the command that restores a volume."""
    words = f"run {name} -o {output} --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --device cpu --background 100"
    with (folder / "log").open("wb") as log:
        start = time.monotonic()
        process = Popen([sys.executable, "-m", "gpudecon", *words.split(), *more], cwd=folder, stderr=log)
        peak = 0
        while process.poll() is None:
            peak = max(peak, most_resident(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit((folder / "log").read_text())
    print((folder / "log").read_text().splitlines()[-1])
    return time.monotonic() - start, peak


def most_resident(pid: int) -> int:
    """Bytes that a process has had resident at most; not from `wait4`, which counts what it was forked from, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0  # none when it has just ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--iterations", type=int, default=2)
    args = parser.parse_args()
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    iterations = ("--iterations", str(args.iterations))
    large, small = ((64, 4096, 8192), (64, 768, 768)) if not args.toy else ((16, 700, 600), (16, 300, 260))
    memory = "1GiB" if not args.toy else "340MiB"
    with tempfile.TemporaryDirectory(dir=args.output.parent) as name:
        folder = Path(name)
        write_psf(folder / "psf.tif")
        write_volume(folder / "small.ome.zarr", small)
        restore(folder, "small.ome.zarr", "whole.ome.zarr", *iterations, "--tile", *map(str, small))
        tile = [str(n) for n in (small[0], *(n // 3 for n in small[1:]))]
        restore(folder, "small.ome.zarr", "tiled.ome.zarr", *iterations, "--tile", *tile)
        whole, tiled = (gd.read(folder / f"{name}.ome.zarr") for name in ("whole", "tiled"))
        differences = relative_difference(tiled.volume(), whole.volume(), brightness(whole.volume()))
        rows.add(
            "tiled and whole", "rl", shape=small, tiles=tiled.provenance["plan"]["tiles"], iterations=args.iterations,
            largest_difference=float(differences.max()),
        )  # fmt: skip
        print(rows.all[-1])
        for times in (1, 2):
            shape = (large[0], large[1], times * large[2])
            write_volume(folder / "in.ome.zarr", shape)
            seconds, peak = restore(folder, "in.ome.zarr", "out.ome.zarr", *iterations, "--memory", memory)
            plan = gd.read(folder / "out.ome.zarr").provenance["plan"]
            rows.add(
                "memory", "rl", shape=shape, bytes=2 * int(np.prod(shape)), memory=memory, iterations=args.iterations,
                peak_resident_bytes=peak, seconds=seconds, tiles=plan["tiles"], tile=plan["tile"], halo=plan["halo"],
            )  # fmt: skip
            print(rows.all[-1])
            for path in ("in.ome.zarr", "out.ome.zarr"):
                shutil.rmtree(folder / path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
