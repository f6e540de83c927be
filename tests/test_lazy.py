"""Dask arrays stay lazy, and come out as the same image restored at once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.engine.seams import TOLERANCE, brightness, relative_difference
from gpudecon.errors import InputError

da = pytest.importorskip("dask.array")
VOXEL = (0.3, 0.1, 0.1)


@pytest.fixture
def recorded(rng, asymmetric_psf):
    """(image, PSF) with points and noise."""
    image = rng.poisson(20, (5, 37, 90)).astype(np.uint16)
    image[1:4, 3::11, 4::13] += rng.poisson(400, image[1:4, 3::11, 4::13].shape).astype(np.uint16)
    return image, asymmetric_psf((3, 4, 5))


@pytest.mark.parametrize(("name", "options"), [("rl", {"acceleration": "biggs"}), ("wiener", {}), ("median", {})])
def test_lazy_is_eager(recorded, name, options):
    image, psf = recorded
    used = psf if gd.METHODS[name].needs_psf else None
    settings = {"background": "auto", "device": "cpu", "voxel_um": VOXEL, **options}
    lazy = gd.deconvolve(da.from_array(image, chunks=(5, 37, (40, 50))), used, name, **settings)
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype, lazy.chunks) == (image.shape, np.float32, ((5,), (37,), (40, 50)))
    constants = gd.Deconvolver(image.shape, used, name, **settings).decide(image)
    whole = gd.deconvolve(image, used, name, constants=constants, **settings)
    margin = gd.halo(None if used is None else gd.PSF(used), constants.method, voxel_um=VOXEL)
    far = slice(margin[2], -margin[2]) if name == "wiener" else slice(None)  # which couples opposite faces
    difference = relative_difference(lazy.compute(scheduler="synchronous"), whole, brightness(whole))
    assert difference[..., far].max() <= TOLERANCE


def test_a_block_takes_no_more_than_its_halo(recorded):
    """Poison farther away is not even read, and nothing is computed before it is asked for."""
    image, psf = recorded
    settings = {"iterations": 3, "device": "cpu"}
    constants = gd.Deconvolver(image.shape, psf, **settings).decide(image)
    margin = gd.halo(gd.PSF(psf), constants.method)[2]
    reads = []

    def load(block_info=None):
        _, y, x = block_info[None]["array-location"]
        reads.append(x)
        block = image[:, slice(*y), slice(*x)].astype(np.float32)
        return block if x[0] < 10 + margin else np.full_like(block, np.nan)

    source = da.map_blocks(
        load, chunks=((5,), (37,), (10,) * 9), dtype=np.float32, meta=np.zeros((0, 0, 0), np.float32)
    )
    lazy = gd.deconvolve(source, psf, constants=constants, **settings)
    assert reads == []
    first = lazy[..., :10].compute(scheduler="synchronous")
    assert max(stop for _, stop in reads) < 10 + margin + 10
    part = gd.deconvolve(image[..., : 10 + margin].astype(np.float32), psf, constants=constants, **settings)
    assert (first == part[..., :10]).all()
    with pytest.raises(InputError, match="NaN"):
        lazy[..., -10:].compute(scheduler="synchronous")


def test_planes_and_tasks(recorded):
    """Of a plane (y, x): one restoration per block, and the graph can be sent to another process."""
    image, psf = recorded[0][2], recorded[1][1]
    lazy = gd.deconvolve(da.from_array(image, chunks=(20, 30)), gd.PSF(psf), iterations=3, device="cpu")
    restoring = [key for key in lazy.__dask_graph__() if str(key).startswith("_restored_part")]
    assert len(restoring) == 6
    assert pickle.loads(pickle.dumps(lazy)).compute(scheduler="synchronous").shape == (37, 90)


def test_what_a_lazy_array_cannot_have(recorded):
    image, psf = recorded
    lazy = da.from_array(image, chunks=(5, 20, 30))
    with pytest.raises(InputError, match="without mask, callback"):
        gd.deconvolve(lazy, psf, mask=np.ones(image.shape, bool))
    with pytest.raises(InputError, match="An image of the background"):
        gd.deconvolve(lazy, psf, background=np.ones(image.shape))
    with pytest.raises(InputError, match="opposite faces touch"):
        gd.deconvolve(lazy, psf, edges="periodic", iterations=1, device="cpu")
    with pytest.raises(InputError, match="homomorphic with these options depends on the whole"):
        gd.deconvolve(lazy, None, "homomorphic", device="cpu")
    with pytest.raises(InputError, match="has shape"):
        gd.deconvolve(lazy[None], psf, iterations=1, device="cpu")
    unknown = lazy.ravel()[lazy.ravel() > 20]
    with pytest.raises(InputError, match="of known size"):
        gd.deconvolve(unknown, psf)


@pytest.mark.parametrize("method", [gd.RichardsonLucy(), gd.METHODS["median"]()])
@pytest.mark.parametrize("voxel_um", [0.1, (0.1,), (0.1, 0.1), (0.2, 0.1, -0.1)])
def test_a_halo_needs_a_size_for_each_axis(method, voxel_um, asymmetric_psf):
    psf = gd.PSF(asymmetric_psf((3, 5, 7)), (0.2, 0.1, 0.1)) if method.needs_psf else None
    if psf is None and voxel_um == (0.1, 0.1):
        assert len(gd.halo(psf, method, voxel_um=voxel_um)) == 2  # of planes
        return
    with pytest.raises(InputError, match=r"voxel_um is .*; give 3 positive sizes"):
        gd.halo(psf, method, voxel_um=voxel_um)
