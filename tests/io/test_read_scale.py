"""Reading a part of a file takes the memory of that part, and many threads may read at once."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from gpudecon import io
from gpudecon.image import Blank, Image
from gpudecon.io import planes
from gpudecon.io.store import Store

ZLIB = {"compression": "zlib", "compressionargs": {"level": 1}}


def interleaved(path, values):
    """As LibTIFF and Micro-Manager write: each page's directory before the pixels of the next page."""
    with tifffile.TiffWriter(path) as tif:
        for plane in values:
            tif.write(plane, contiguous=False, metadata=None)


TIFF = {
    "contiguous": lambda path, values: tifffile.imwrite(path, values, photometric="minisblack"),
    "bigtiff": lambda path, values: tifffile.imwrite(path, values, bigtiff=True, photometric="minisblack"),
    "big-endian": lambda path, values: tifffile.imwrite(path, values, byteorder=">", photometric="minisblack"),
    "interleaved": interleaved,
    "planes in one strip": lambda path, values: tifffile.imwrite(
        path, values, rowsperstrip=values.shape[1], photometric="minisblack", **ZLIB
    ),
    "strips": lambda path, values: tifffile.imwrite(path, values, rowsperstrip=16, photometric="minisblack", **ZLIB),
    "tiles": lambda path, values: tifffile.imwrite(path, values, tile=(64, 96), photometric="minisblack"),
    "packed tiles": lambda path, values: tifffile.imwrite(
        path, values, tile=(64, 96), predictor=True, photometric="minisblack", **ZLIB
    ),
}


def zarr_store(path, values, **layout):
    image = Image(Blank(values.shape, values.dtype), "zyx")
    store = Store.create(path, image, chunk=(4, 32, 32), pyramid=False, durable=False, **layout)
    store.write((slice(None),) * 3, values)
    store.complete({})


FILES = {f"{name}.tif": write for name, write in TIFF.items()} | {
    "0.4.zarr": lambda path, values: zarr_store(path, values, ngff="0.4"),
    "0.5.zarr": zarr_store,
    "sharded.zarr": lambda path, values: zarr_store(path, values, shard=(8, 64, 96)),
}


@pytest.mark.parametrize("name", FILES)
def test_many_threads(tmp_path, monkeypatch, rng, name):
    monkeypatch.setattr(planes, "DECODED_BYTES", 3 * 100 * 150 * 2)  # three planes
    values = rng.integers(1, 60000, (13, 100, 150)).astype("u2")
    FILES[name](tmp_path / name, values)
    image = io.read(tmp_path / name)
    assert image.axes == "zyx"
    starts = [[int(rng.integers(0, n)) for n in values.shape] for _ in range(100)]
    regions = [
        tuple(slice(i, int(rng.integers(i, n)) + 1) for i, n in zip(start, values.shape, strict=True))
        for start in starts
    ]
    with ThreadPoolExecutor(8) as pool:
        for region, block in zip(regions, pool.map(image.data.__getitem__, regions), strict=True):
            np.testing.assert_array_equal(block, values[region])


PEAK = """
import sys
from gpudecon import io

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

image = io.read(sys.argv[1])
image.data[0:1, 0:1, 0:1]
before = peak()
block = image.data[0:16, 1000:1064, 900:964]
print(peak() - before, block[5, 7, 9])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", ["contiguous", "interleaved", "planes in one strip", "tiles"])
def test_memory_of_a_small_part(tmp_path, name):
    """Of a file of 128 MiB; a strip that is a whole plane (8 MiB) must be decoded, but not all at once."""
    values = (np.arange(16 * 2048 * 2048, dtype="u4") // 3 % 60000).astype("u2").reshape(16, 2048, 2048)
    TIFF[name](tmp_path / "a.tif", values)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "a.tif")], capture_output=True, text=True, check=True
    )
    kib, voxel = map(int, done.stdout.split())
    assert voxel == values[5, 1007, 909]
    assert kib < 1024 * (48 if name == "planes in one strip" else 8)
