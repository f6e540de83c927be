"""An output is there complete or not at all, and an older one stays until then."""

import errno
import os
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gpudecon import io
from gpudecon.errors import InputError, RunError
from gpudecon.image import Blank, Channel, Image
from gpudecon.io import ome_tiff, store
from gpudecon.io.ome_tiff import OmeTiff
from gpudecon.io.store import Store

OUTPUTS = ["out.ome.tif", "out.tiff", "out.ome.zarr", "out.zarr"]


def image(value=1, shape=(3, 5, 7)):
    return Image(np.full(shape, value, "f4"), "zyx")


def tree(folder):
    """Every file below a folder with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@dataclass
class Watched:
    """Pixels that call ``see`` when they are read."""

    pixels: Any
    see: Any

    @property
    def shape(self):
        return self.pixels.shape

    @property
    def dtype(self):
        return self.pixels.dtype

    def __getitem__(self, region):
        self.see()
        return self.pixels[region]


def watched(value, see):
    return Image(Watched(image(value).data, see), "zyx")


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_shows_before_the_end(tmp_path, name):
    seen = []

    def see():
        seen.extend(path.name for path in tmp_path.iterdir())

    io.write(tmp_path / name, watched(2, see))
    assert seen
    assert all(found.startswith(f".{name}.partial-") for found in seen)
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert (np.asarray(io.read(tmp_path / name).data) == 2).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("unreadable")])
@pytest.mark.parametrize("name", OUTPUTS)
def test_failure_leaves_nothing(tmp_path, name, error):
    def fail():
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        io.write(tmp_path / name, watched(1, fail))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_old_output_stays_until_the_end(tmp_path, name):
    io.write(tmp_path / name, image(1))
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"{name} exists; choose another name or ask to overwrite it"):
        io.write(tmp_path / name, image(2))
    assert tree(tmp_path) == before
    seen = []
    new = watched(2, lambda: seen.append(np.asarray(io.read(tmp_path / name).data)))
    io.write(tmp_path / name, new, overwrite=True)
    assert all((values == 1).all() for values in seen)
    assert (np.asarray(io.read(tmp_path / name).data) == 2).all()
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path, name):
    late = watched(1, lambda: None if (tmp_path / name).exists() else io.write(tmp_path / name, image(2)))
    with pytest.raises(InputError, match="exists"):
        io.write(tmp_path / name, late)
    assert (np.asarray(io.read(tmp_path / name).data) == 2).all()
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["out.ome.tif", "out.ome.zarr"])
def test_memory_is_that_of_a_part(tmp_path, monkeypatch, name):
    for module in (ome_tiff, store):
        monkeypatch.setattr(module, "BLOCK_VOXELS", 2**21)  # one chunk
    io.write(tmp_path / f"small.{name}", image())  # what is made once

    class Made:
        shape, dtype = (160, 512, 512), np.dtype("u1")

        def __getitem__(self, region):
            return np.full([part.stop - part.start for part in region], region[0].start % 251, "u1")

    tracemalloc.start()
    io.write(tmp_path / name, Image(Made(), "zyx", (0.3, 0.1, 0.1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 32 * 256 * 256 + 8 * 32 * 256 * 256 < 160 * 512 * 512
    assert (io.read(tmp_path / name).data[32:33, 500:, 500:] == 32).all()


def test_a_failed_move_puts_the_old_store_back(tmp_path, monkeypatch):
    path = tmp_path / "out.zarr"
    io.write(path, image(1))
    before = tree(tmp_path)
    rename = type(path).rename

    def failing(self, target):
        if ".partial-" in str(self) and self.name == "out.zarr":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", failing)
    with pytest.raises(RunError, match=r"Writing .*out\.zarr failed: Input/output error; nothing was left behind"):
        io.write(path, image(2), overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["out.ome.tif", "out.ome.zarr"])
def test_folders_of_the_user_are_not_deleted(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"{name} is a folder that is no Zarr store; it is not deleted"):
        io.write(tmp_path / name, image(), overwrite=True)
    assert tree(tmp_path) == before


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    before = tree(tmp_path)
    for path, message in {
        "out.png": r"out\.png has no suffix that says its format; use one of \.ome\.zarr, \.zarr, \.ome\.tiff",
        "out": r"use one of \.ome\.zarr",
        "nowhere/out.tif": "needs the folder .*nowhere, which does not exist; create it",
        "file/out.tif": "needs the folder .*file, which is a file, not a folder",
        "x" * 250 + ".tif": "cannot be written: File name too long",
    }.items():
        with pytest.raises(InputError, match=message):
            io.write(tmp_path / path, image())
    for dtype in ("bool", "c8", "i8", "f2"):
        with pytest.raises(InputError, match="cannot be written; use one of uint8, uint16"):
            io.write(tmp_path / "out.zarr", image(), dtype=dtype)
    with pytest.raises(InputError, match=r"version of OME-Zarr is given as '0\.6'; use one of 0\.4, 0\.5"):
        io.write(tmp_path / "out.zarr", image(), ngff="0.6")
    coloured = Image(Blank((5, 7), np.dtype("f4")), "yx", channels=(Channel("GFP", color="green"),))
    with pytest.raises(InputError, match="colour of channel 'GFP' is 'green'; give six hexadecimal digits"):
        io.write(tmp_path / "out.zarr", coloured)
    assert tree(tmp_path) == before


def test_check_output(tmp_path, monkeypatch):
    assert io.check_output(tmp_path / "a.OME.TIF") == "OME-TIFF"
    assert io.check_output(tmp_path / "a.zarr") == "OME-Zarr"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"a\.zarr cannot be written: no permission to write in"):
        io.check_output(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("out.ome.tif", "os.posix_fallocate"),
        ("out.ome.tif", "gpudecon.io.ome_tiff.OmeTiff.write"),
        ("out.ome.zarr", "zarr.create_group"),
        ("out.ome.zarr", "gpudecon.io.store.Store.write"),
    ],
)
def test_full_disk(tmp_path, monkeypatch, name, function):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(function, full)
    with pytest.raises(RunError, match=f"Writing .*{name} failed: No space left on device; nothing was left behind"):
        io.write(tmp_path / name, image())
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("made", [OmeTiff, lambda path, described: Store.create(path, described)])
def test_blocks_must_fit(tmp_path, made):
    file = made(tmp_path / "out", Image(Blank((1, 3, 5, 7), np.dtype("u2")), "czyx"))
    whole = (slice(None),) * 4
    for block in (np.ones((3, 5, 6), "u2"), np.ones((1, 1, 1), "u2"), np.ones((3, 5, 7), "f4")):
        with pytest.raises(ValueError, match=r"the region takes uint16 of shape \(1, 3, 5, 7\)"):
            file.write(whole, block)
    file.write(whole, np.ones((3, 5, 7), "u2"))


@pytest.mark.parametrize("value", [-1, 256, np.nan, np.inf])
def test_values_that_do_not_fit(tmp_path, value):
    with pytest.raises(InputError, match="do not fit into uint8; scale them or write float32"):
        io.write(tmp_path / "out.tif", image(value), dtype="u1")
    assert tree(tmp_path) == {}
