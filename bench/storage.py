"""Benchmark of files: MiB/s of writing and reading beside a bare copy of the same bytes to and from the same disk.

python bench/storage.py -o bench/results/storage.jsonl
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import HERE, Rows, environment, print_table
from timing import WallClock, interleaved

from gpudecon.backend.slabs import available_cores
from gpudecon.image import Image, Region
from gpudecon.io.ome_tiff import export
from gpudecon.io.store import Store


@dataclass(frozen=True)
class Size:
    """What is measured, and how often; lengths are (z, y, x)."""

    shape: tuple[int, int, int]
    chunk: tuple[int, int, int]
    unit: tuple[int, int, int]  # a shard, or what is written at once of a store without
    halo: int
    rounds: int


FULL = Size((128, 1024, 1024), (32, 128, 128), (64, 512, 512), 16, 5)
QUICK = Size((13, 70, 90), (4, 16, 16), (8, 32, 32), 3, 2)
LAYOUTS: dict[str, dict[str, Any]] = {"0.4": {"ngff": "0.4"}, "0.5": {}, "0.5 sharded": {}}


def specimen(shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Blobs on a background, with photon noise: compresses as images do."""
    rng = np.random.default_rng(1)
    z, y, x = (np.arange(n, dtype=np.float32) for n in shape)
    light = 1 + np.sin(z / 7)[:, None, None] * np.sin(y / 23)[:, None] * np.sin(x / 31)
    return rng.poisson(100 + 300 * light * light).astype(np.uint16)


def regions(size: Size, halo: int = 0) -> list[Region]:
    counts = [-(-n // u) for n, u in zip(size.shape, size.unit, strict=True)]
    return [
        tuple(
            slice(max(0, i * u - halo), min(n, (i + 1) * u + halo))
            for i, u, n in zip(index, size.unit, size.shape, strict=True)
        )
        for index in np.ndindex(*counts)
    ]


def measure(rows: Rows, size: Size, threads: int, folder: Path) -> None:
    """Every call writes or reads the whole volume, unit by unit, with ``threads`` at once; files are in the cache."""
    values = specimen(size.shape)
    image = Image(values, "zyx", (0.2, 0.1, 0.1))
    mib = values.nbytes / 2**20
    pool = ThreadPoolExecutor(threads)

    def each(work: Callable[[Region], object], halo: int = 0) -> None:
        list(pool.map(work, regions(size, halo)))

    def bare_write() -> None:
        with (folder / "bare").open("wb") as file:
            values.tofile(file)
            os.fsync(file.fileno())

    stores = {}
    for name, layout in LAYOUTS.items():
        shard = size.unit if name.endswith("sharded") else None
        path = folder / f"{name}.zarr"
        stores[name] = Store.create(path, image, chunk=size.chunk, shard=shard, **layout)
    hasty = Store.open(stores["0.5"].path, durable=False)

    writes: dict[str, Callable[[], object]] = {"bare file": bare_write}
    for name, store in stores.items():
        writes[name] = lambda store=store: each(lambda region: store.write(region, values[region]))
    writes["0.5 not durable"] = lambda: each(lambda region: hasty.write(region, values[region]))
    section(rows, "write", writes, size, mib, threads)

    reads: dict[str, Callable[[], object]] = {"bare file": lambda: np.fromfile(folder / "bare", np.uint16)}
    for name, store in stores.items():
        reads[name] = lambda store=store: each(store.read)
        reads[f"{name} with halo"] = lambda store=store: each(store.read, size.halo)
    section(rows, "read", reads, size, mib, threads)

    def pyramid(store: Store) -> None:
        for level in range(1, len(store.levels)):
            list(pool.map(store.reduce, [task for task in store.pyramid_tasks() if task.level == level]))

    makes: dict[str, Callable[[], object]] = {"bare file": bare_write}
    for name, store in stores.items():
        if len(store.levels) > 1:
            makes[f"pyramid of {name}"] = lambda store=store: pyramid(store)

    def to_tiff() -> None:
        (folder / "out.ome.tif").unlink(missing_ok=True)
        export(folder / "out.ome.tif", stores["0.5"].image, stores["0.5"].units(), {})

    makes["OME-TIFF of 0.5"] = to_tiff
    section(rows, "export", makes, size, mib, threads)
    pool.shutdown()


def section(
    rows: Rows, name: str, calls: dict[str, Callable[[], object]], size: Size, mib: float, threads: int
) -> None:
    taken = interleaved(calls, WallClock(), rounds=size.rounds, warm_up=1)
    for call, timing in taken.items():
        rows.add(
            name,
            call,
            shape=size.shape,
            threads=threads,
            mib=mib,
            mib_per_s=mib / timing.median,
            ratio_to_bare_file=timing.median / taken["bare file"].median,
            **timing.fields,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "storage.jsonl")
    parser.add_argument("--quick", action="store_true", help="tiny volume")
    parser.add_argument("--threads", type=int, default=available_cores())
    args = parser.parse_args()
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    with tempfile.TemporaryDirectory(dir=args.output.parent) as folder:
        measure(rows, QUICK if args.quick else FULL, args.threads, Path(folder))
    print_table(rows.all[1:])


if __name__ == "__main__":
    main()
