"""OME-TIFF from a finished store."""

from dataclasses import replace

import numpy as np
import ome_types
import pytest
import tifffile

from gpudecon import io
from gpudecon.image import Blank, Channel, Image
from gpudecon.io import ome_tiff
from gpudecon.io.pixels import Scaled
from gpudecon.io.store import Store


@pytest.fixture
def store(tmp_path, rng):
    shape = (2, 3, 20, 37, 95)
    channels = tuple(Channel(name, 461.0 + 10 * c, None, "0000FF") for c, name in enumerate(("DAPI", "µ", "GFP")))
    image = Image(Blank(shape, np.dtype("f4")), "tczyx", (0.25, 0.065, 0.066), channels, "cell 1", time_step_s=2.5)
    store = Store.create(tmp_path / "a.zarr", image, chunk=(8, 16, 16), shard=(16, 32, 48), durable=False)
    values = rng.normal(3, 10, shape).astype("f4")
    store.write((slice(None),) * 5, values)
    return store, values


@pytest.mark.parametrize("voxels", [1, 16 * 32 * 96, 2**30])
def test_float_and_scaled(tmp_path, monkeypatch, store, voxels):
    monkeypatch.setattr(ome_tiff, "BLOCK_VOXELS", voxels)
    store, values = store
    ome_tiff.export(tmp_path / "float.ome.tif", store.image, store.units(), {"method": "rl"})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "float.ome.tif"), values)
    read = io.read(tmp_path / "float.ome.tif")
    assert replace(read, data=store.image.data) == store.image
    assert read.provenance["method"] == "rl"
    scaled = Scaled(store.image.data, 0.01, float(values.min()))
    ome_tiff.export(tmp_path / "scaled.ome.tif", replace(store.image, data=scaled), store.units(), {})
    stored = tifffile.imread(tmp_path / "scaled.ome.tif")
    np.testing.assert_array_equal(stored, np.rint((values.astype(float) - values.min()) / 0.01))
    ome = ome_types.from_tiff(tmp_path / "scaled.ome.tif")
    pixels = ome.images[0].pixels
    assert (pixels.type.value, pixels.physical_size_z, pixels.time_increment) == ("uint16", 0.25, 2.5)
    assert [(c.name, c.emission_wavelength) for c in pixels.channels] == [("DAPI", 461), ("µ", 471), ("GFP", 481)]
