"""Images over HTTP, from a server on this machine."""

import http.server
import re
import sys
import threading
from functools import partial

import numpy as np
import pytest
import tifffile
import zarr

from gpudecon import io
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import Channel, Image
from gpudecon.io.fingerprint import fingerprint
from gpudecon.io.store import Store


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, whole or in part; folders are not listed, as object stores do not."""

    def log_message(self, *_):
        pass

    def list_directory(self, _path):
        self.send_error(404)

    def send_head(self):
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return super().send_head()
        try:
            file = open(self.translate_path(self.path), "rb")  # noqa: SIM115, PTH123 -- the base class closes it
        except OSError:
            return self.send_error(404)
        size = file.seek(0, 2)
        first, last = asked.groups()
        start = int(first) if first else size - int(last)
        stop = min(int(last) + 1, size) if first and last else size
        file.seek(start)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(file.read(stop - start))
        file.close()
        return None


@pytest.fixture
def served(tmp_path):
    """A folder and its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def image(rng):
    values = rng.integers(1, 60000, (2, 20, 37, 95)).astype("u2")
    return Image(values, "czyx", (0.25, 0.065, 0.066), (Channel("DAPI", 461), Channel("GFP", 509)), "cell")


@pytest.mark.parametrize("layout", [{"ngff": "0.4"}, {}, {"shard": (16, 32, 48)}], ids=["0.4", "0.5", "sharded"])
def test_ome_zarr(served, image, layout):
    folder, address = served
    store = Store.create(folder / "a.ome.zarr", image, chunk=(8, 16, 16), durable=False, **layout)
    store.write((slice(None),) * 4, image.data)
    store.complete({"method": "rl"})
    found = io.read(f"{address}/a.ome.zarr")
    assert (found.axes, found.voxel_um, found.channels, found.name) == ("czyx", image.voxel_um, image.channels, "cell")
    region = (slice(1, 2), slice(3, 17), slice(5, 30), slice(40, 90))
    np.testing.assert_array_equal(found.data[region], image.data[region])
    np.testing.assert_array_equal(found.volume(0, 1), image.data[1])
    before = fingerprint(f"{address}/a.ome.zarr")
    assert fingerprint(f"{address}/a.ome.zarr") == before
    store.complete({"method": "wiener"})
    assert fingerprint(f"{address}/a.ome.zarr") != before


def test_bioformats2raw(served, image):
    folder, address = served
    zarr.create_group(folder / "a.zarr").attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for n in "01":
        io.write(folder / "a.zarr" / f"{n}.zarr", image)
        (folder / "a.zarr" / f"{n}.zarr").rename(folder / "a.zarr" / n)
    with pytest.warns(GpudeconWarning, match=r"a\.zarr holds 2 images; the first is used"):
        found = io.read(f"{address}/a.zarr")
    np.testing.assert_array_equal(np.asarray(found.data), image.data)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32), "compression": "zlib"}])
def test_tiff(served, image, layout):
    folder, address = served
    metadata = {"axes": "CZYX", "Name": "a", "PhysicalSizeX": 0.1}
    tifffile.imwrite(folder / "a.ome.tif", image.data, ome=True, photometric="minisblack", metadata=metadata, **layout)
    found = io.read(f"{address}/a.ome.tif?part=1")
    assert (found.axes, found.name) == ("czyx", "a")
    region = (slice(1, 2), slice(3, 17), slice(5, 30), slice(40, 90))
    np.testing.assert_array_equal(found.data[region], image.data[region])


def test_nothing_there(served):
    _, address = served
    with pytest.raises(InputError, match=r"http://.*/no\.zarr is not to be had or no OME-Zarr image.*give the path"):
        io.read(f"{address}/no.zarr")
    with pytest.raises(InputError, match=r"http://.*/no\.tif cannot be read as an image"):
        io.read(f"{address}/no.tif")
    with pytest.raises(InputError, match=r"gopher://a/b is no address that can be read.*use https:// or s3://"):
        io.read("gopher://a/b")


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_without_the_extra(monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing or name.startswith("fsspec.impl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'needs the extra: pip install "gpudecon\[remote\]"'):
        io.read("https://127.0.0.1/a.zarr")


def test_located(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert io.located("https://a.b/c.zarr") == "https://a.b/c.zarr"
    assert io.located("a_{z}.tif") == str(tmp_path / "a_{z}.tif")
