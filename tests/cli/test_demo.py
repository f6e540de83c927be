"""gpudecon demo: a gain that can be read off the table, and files that others can open."""

import re
import struct

import numpy as np
import pytest
import yaozarrs

import gpudecon as gd
from gpudecon.cli import demo
from gpudecon.quality.metrics import nrmse

NAMES = ["raw", "restored", "truth"]


@pytest.fixture
def earlier(cli):
    """The folder of an earlier demo: every file is there, and none of them holds what a demo makes."""
    folder = cli.folder / "here" / "demo"
    folder.mkdir(parents=True)
    for name in NAMES:
        gd.write(folder / f"{name}.ome.zarr", gd.Image(np.ones((3, 4, 5), np.uint8), "zyx"))
    (folder / "projections.png").touch()
    return folder


@pytest.mark.slow
def test_demo(cli, earlier):
    """Onto the files of an earlier one."""
    done = cli("demo -o here/demo --device cpu --overwrite")
    table = {name: [float(n) for n in numbers] for name, numbers in rows(done.stdout)}
    assert list(table) == ["raw", "restored"]
    (raw_error, *raw_um), (error, *um) = table.values()
    assert error < 0.75 * raw_error
    assert all(after < before for after, before in zip(um, raw_um, strict=True))

    pages = {"projections.png", "report.html"}
    assert {p.name for p in earlier.iterdir()} == pages | {f"{name}.ome.zarr" for name in NAMES}
    assert all(f'alt="{name}, along z"' in (earlier / "report.html").read_text() for name in ("input", *NAMES[1:]))
    stacks = {name: gd.read(earlier / f"{name}.ome.zarr") for name in NAMES}
    for name, image in stacks.items():
        yaozarrs.validate_zarr_store(str(earlier / f"{name}.ome.zarr"))
        assert image.voxel_um == (0.2, 0.08, 0.08)
        assert image.channels[0].emission_nm == 520
    assert stacks["raw"].dtype == np.uint16
    truth = stacks["truth"].volume()
    assert nrmse(stacks["restored"].volume(), truth) == pytest.approx(error, abs=1e-3)
    assert nrmse(stacks["raw"].volume(), truth) == pytest.approx(raw_error, abs=1e-3)

    header = (earlier / "projections.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:])
    assert width > height > 300


def test_an_earlier_demo_is_kept(cli, earlier, refused):
    refused("demo -o here/demo --device cpu", "exists", "overwrite")
    for name in NAMES:  # the picture alone is not replaced unasked either
        (earlier / f"{name}.ome.zarr").rename(cli.folder / name)
    refused("demo -o here/demo --device cpu", "projections.png exists", "overwrite")


def test_a_demo_in_a_new_folder_is_the_same_every_time(cli, here, monkeypatch):
    """At a small size."""
    monkeypatch.setattr(demo, "SHAPE", (12, 48, 48))
    monkeypatch.setattr(demo, "MARGIN", (4, 8, 8))
    monkeypatch.setattr(demo, "ITERATIONS", 3)
    first, second = (here(f"demo -o {folder} --device cpu") for folder in ("here/first", "here/second"))
    assert first.stdout == second.stdout
    for name in NAMES:
        again = cli.read(f"here/second/{name}.ome.zarr").volume()
        np.testing.assert_array_equal(cli.read(f"here/first/{name}.ome.zarr").volume(), again)


def rows(text):
    """Name and numbers of each line of the table."""
    for line in text.splitlines()[1:]:
        yield line.split()[0], re.findall(r"\d+\.\d+", line)


def test_bad_demo(cli, refused_here):
    (cli.folder / "file").touch()
    refused_here("demo -o file", "file", "cannot be made")
    refused_here("demo --seed -1", "--seed is -1")
    refused_here("demo --device tpu", "'tpu'")
