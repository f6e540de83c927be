"""Tiled equals whole: differences at the seams, and the check that finds them."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.engine.seams import TOLERANCE, brightness, relative_difference
from gpudecon.engine.tiling import Tiling

VOXEL = (0.3, 0.1, 0.1)
VARIANTS = [
    *((name, {}) for name in gd.METHODS if name != "homomorphic"),
    ("rl", {"acceleration": "shb"}),
    ("rl", {"acceleration": "biggs", "start": "wiener"}),
    ("rl", {"back_projector": "wb"}),
    ("rl", {"goods_roughness": 0.01, "stop": "auto", "iterations": 20}),
    ("cls", {"gamma": "gcv"}),
]


@pytest.fixture(scope="module")
def recording():
    """(image, PSF without symmetry): blobs and points with noise, much brighter at one end than at the other."""
    rng = np.random.default_rng(11)
    shape = (5, 23, 301)
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
    tiling = Tiling(image.shape, (5, 23, 150), (margin[0], margin[1], min(margin[2], 150)))
    tiled = np.full(image.shape, np.nan, np.float32)
    for tile in tiling:
        tiled[tile.core] = restore(image[tile.read])[tile.crop]
    difference = relative_difference(tiled, whole, brightness(whole))
    seams = difference[..., 130:170]
    print(name, options, margin, seams.max(), difference.max())
    assert seams.max() <= TOLERANCE
