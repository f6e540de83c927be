"""Tiled equals whole: differences at the seams, and the check that finds them."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.engine.seams import TOLERANCE, brightness, check_seams, relative_difference
from gpudecon.engine.tiling import Tiling
from gpudecon.errors import InputError
from gpudecon.methods.reach import Spread

VOXEL = (0.3, 0.1, 0.1)
VARIANTS = [
    *((name, {}) for name, method in gd.METHODS.items() if method().divisible),
    ("rl", {"acceleration": "shb"}),
    ("rl", {"edges": "reflect"}),
    ("rl", {"acceleration": "biggs", "start": "wiener"}),
    ("rl", {"back_projector": "wb"}),
    ("rl", {"goods_roughness": 0.01, "stop": "auto", "iterations": 20}),
    ("cls", {"gamma": "gcv"}),
]


@pytest.fixture(scope="module")
def recording():
    """(image, PSF without symmetry): blobs and points with noise, much brighter at one end than at the other."""
    rng = np.random.default_rng(11)
    shape = (4, 15, 241)
    truth = 400 * ndimage.gaussian_filter((rng.random(shape) < 0.02).astype(float), (0.7, 2, 2)) * 30
    truth[rng.random(shape) < 0.003] += 900
    truth *= np.linspace(0.2, 2, shape[2])
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (3, 7, 8)), indexing="ij")
    psf = np.exp(-sum((g / s) ** 2 for g, s in zip(grid, (0.7, 1.0, 1.2), strict=True)) / 2)
    psf += 0.3 * np.exp(-sum(((g - i) / 0.8) ** 2 for i, g in enumerate(grid)) / 2)
    psf = (psf / psf.sum()).astype(np.float32)
    blurred = ndimage.convolve(truth, psf.astype(float)[::-1, ::-1, ::-1], mode="reflect")
    return rng.poisson(np.maximum(blurred, 0) + 100).astype(np.uint16), gd.PSF(psf, VOXEL)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_two_tiles_are_the_whole(recording, name, options):
    image, psf = recording
    used = psf if gd.METHODS[name].needs_psf else None
    settings = {"background": "auto", "device": "cpu", "voxel_um": VOXEL, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gd.GpudeconWarning)  # of few planes, of the limit: not the point here
        constants = gd.Deconvolver(image.shape, used, name, **settings).decide(image)
    restore = functools.partial(gd.deconvolve, psf=used, method=name, constants=constants, **settings)
    whole = restore(image)
    margin = gd.halo(used, constants.method, voxel_um=VOXEL)
    tiling = Tiling(image.shape, (4, 15, 120), (margin[0], margin[1], min(margin[2], 120)))
    tiled = np.full(image.shape, np.nan, np.float32)
    for tile in tiling:
        tiled[tile.core] = restore(image[tile.read])[tile.crop]
    assert relative_difference(tiled, whole, brightness(whole))[..., 100:140].max() <= TOLERANCE


def checked(tiling, image, psf, constants, spoil=None):
    """What `check_seams` says of a tiled restoration, of which ``spoil`` is called with the result."""
    settings = {"background": 100.0, "device": "cpu", "voxel_um": VOXEL, "iterations": 10}

    def restore(box):
        return gd.deconvolve(np.ascontiguousarray(image[box]), psf, constants=constants, **settings)

    tiled = np.full(image.shape, np.nan, np.float32)
    for tile in tiling:
        tiled[tile.core] = restore(tile.read)[tile.crop]
    if spoil is not None:
        spoil(tiled)
    return check_seams(tiling, restore, tiled.__getitem__, most=4)


def test_seams_are_checked_with_twice_the_halo(recording):
    image, psf = recording
    settings = {"background": 100.0, "device": "cpu", "voxel_um": VOXEL, "iterations": 10}
    constants = gd.Deconvolver(image.shape, psf, **settings).decide(image)
    _, y, x = gd.halo(psf, constants.method, voxel_um=VOXEL)
    wide = Tiling(image.shape, (4, 8, 60), (0, y, x))
    seams = checked(wide, image, psf, constants)
    assert len(seams) == 4
    assert all(seam.is_tight for seam in seams)
    for seam in seams:
        assert all(0 <= s.start < s.stop <= n for s, n in zip(seam.box, image.shape, strict=True))
        across_y = seam.box[1].start < 8 < seam.box[1].stop
        assert across_y or any(seam.box[2].start < cut < seam.box[2].stop for cut in (60, 120, 180))
    narrow = checked(Tiling(image.shape, (4, 8, 60), (0, 1, 1)), image, psf, constants)
    assert [seam.box for seam in narrow] == [seam.box for seam in seams]
    assert max(seam.difference for seam in narrow) > 0.05

    def spoil(tiled):
        tiled[tuple(slice((s.start + s.stop) // 2, (s.start + s.stop) // 2 + 1) for s in seams[1].box)] *= 1.01

    spoiled = checked(wide, image, psf, constants, spoil)
    assert spoiled[1].difference > seams[1].difference
    assert [seam.difference for i, seam in enumerate(spoiled) if i != 1] == [
        seam.difference for i, seam in enumerate(seams) if i != 1
    ]


def test_one_tile_has_no_seams(recording):
    image, psf = recording
    constants = gd.Deconvolver(image.shape, psf, background=100.0, iterations=10, device="cpu").decide(image)
    assert checked(Tiling(image.shape, image.shape), image, psf, constants) == []


def test_the_halo_is_the_psf_s_radius_times_the_reach(asymmetric_psf):
    """A box of 7 x 5 x 11 voxels: 95 % of its light lies within 3, 2 and 5 voxels of the centre."""
    box = gd.PSF(np.ones((7, 5, 11), np.float32), VOXEL)
    rl = gd.RichardsonLucy()
    assert gd.halo(box, rl) == tuple(7 * r for r in (3, 2, 5))
    assert gd.halo(gd.PSF(np.ones((5, 11), np.float32)), rl) == (14, 35)
    assert gd.halo(None, gd.Median(size=5), voxel_um=VOXEL) == (0, 4, 4)
    assert gd.halo(None, gd.TotalVariation(), voxel_um=VOXEL) == (11, 30, 30)
    stronger = [gd.halo(box, gd.Wiener(noise_to_signal=k))[2] for k in (1.0, 1e-2, 1e-4)]
    assert stronger == sorted(stronger)
    assert stronger[0] < stronger[-1]
    halved = gd.halo(gd.PSF(asymmetric_psf((5, 9, 9)), (0.3, 0.2, 0.2)), rl, voxel_um=(0.3, 0.1, 0.1))
    once = gd.halo(gd.PSF(asymmetric_psf((5, 9, 9)), (0.3, 0.2, 0.2)), rl)
    assert once[0] == halved[0]
    assert halved[1] == pytest.approx(2 * once[1], abs=7)
    for method in (gd.Homomorphic(), gd.ICTM(), gd.Wiener(noise_to_signal="spectrum")):
        with pytest.raises(InputError, match="depends on the whole image"):
            gd.halo(box, method)
    with pytest.raises(InputError, match="needs a PSF"):
        gd.halo(None, rl)


def test_the_reach_of_a_filter_is_that_of_its_kernel():
    """A filter 1 / (1 + a L) of a point: its kernel decays by the factor q with q + 1 / q = 2 + 1 / a per voxel."""
    point = gd.PSF(np.ones((1, 1, 1), np.float32), (1.0, 1.0, 1.0))
    a = 20.0
    q = 1 + 1 / (2 * a) - np.sqrt((1 + 1 / (2 * a)) ** 2 - 1)
    # sum of the kernel beyond r on both sides, in a kernel of sum 1: 2 q^r / (1 + q)
    expected = int(np.ceil(np.log(1e-3 * (1 + q) / 2) / np.log(q)))
    assert Spread(point.array, 2, (1.0, 1.0, 1.0)).of_filter(lambda h, laplacian: h / (1 + a * laplacian)) == expected
