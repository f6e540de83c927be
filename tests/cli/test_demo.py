"""gpudecon demo: a gain that can be read off the table, and files that others can open."""

import re
import struct

import numpy as np
import pytest
import yaozarrs

import gpudecon as gd
from gpudecon.quality.metrics import nrmse


@pytest.mark.slow
def test_demo(cli, refused):
    done = cli("demo -o here/demo --device cpu")
    table = {name: [float(n) for n in numbers] for name, numbers in rows(done.stdout)}
    assert list(table) == ["raw", "restored"]
    (raw_error, *raw_um), (error, *um) = table.values()
    assert error < 0.75 * raw_error
    assert all(after < before for after, before in zip(um, raw_um, strict=True))

    folder = cli.folder / "here" / "demo"
    names = ["raw", "restored", "truth"]
    assert {p.name for p in folder.iterdir()} == {"projections.png", *(f"{name}.ome.zarr" for name in names)}
    stacks = {name: gd.read(folder / f"{name}.ome.zarr") for name in names}
    for name, image in stacks.items():
        yaozarrs.validate_zarr_store(str(folder / f"{name}.ome.zarr"))
        assert image.voxel_um == (0.2, 0.08, 0.08)
        assert image.channels[0].emission_nm == 520
    assert stacks["raw"].dtype == np.uint16
    truth = stacks["truth"].volume()
    assert nrmse(stacks["restored"].volume(), truth) == pytest.approx(error, abs=1e-3)
    assert nrmse(stacks["raw"].volume(), truth) == pytest.approx(raw_error, abs=1e-3)

    header = (folder / "projections.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:])
    assert width > height > 300

    refused("demo -o here/demo --device cpu", "exists", "overwrite")
    for name in names:  # the picture alone is not replaced unasked either
        (folder / f"{name}.ome.zarr").rename(cli.folder / name)
    refused("demo -o here/demo --device cpu", "projections.png exists", "overwrite")
    assert cli("demo -o here/demo --device cpu --overwrite").stdout == done.stdout


def rows(text):
    """Name and numbers of each line of the table."""
    for line in text.splitlines()[1:]:
        yield line.split()[0], re.findall(r"\d+\.\d+", line)


def test_bad_demo(cli, refused):
    (cli.folder / "file").touch()
    refused("demo -o file", "file", "cannot be made")
    refused("demo --seed -1", "--seed is -1")
    refused("demo --device tpu", "'tpu'")
