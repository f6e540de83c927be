"""Median filter: against loops, on anisotropic voxels, and on salt and pepper."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

import gpudecon as gd
from gpudecon.errors import InputError
from gpudecon.simulate import phantom


def by_loops(image, size):
    """Median over a box around each voxel; beyond the faces stands the mirror image."""
    reach = [n // 2 for n in size]
    padded = np.pad(image, [(r, r) for r in reach], mode="symmetric")
    out = np.empty(image.shape, image.dtype)
    for index in np.ndindex(image.shape):
        box = padded[tuple(slice(i, i + n) for i, n in zip(index, size, strict=True))]
        out[index] = np.sort(box, axis=None)[box.size // 2]
    return out


CASES = {
    "3-D": ((5, 9, 11), (0.1, 0.1, 0.1), 3, (3, 3, 3)),
    "planes far apart": ((5, 9, 11), (0.3, 0.1, 0.1), 3, (1, 3, 3)),
    "coarse planes": ((5, 9, 11), (0.2, 0.1, 0.1), 5, (3, 5, 5)),
    "rows": ((4, 7, 10), (0.1, 0.4, 0.1), 5, (5, 1, 5)),
    "one fine plane": ((1, 9, 11), (0.05, 0.1, 0.1), 3, (1, 3, 3)),
    "2-D": ((9, 11), (0.1, 0.1), 5, (5, 5)),
    "one voxel": ((4, 9, 11), (0.1, 0.1, 0.1), 1, (1, 1, 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("name", CASES)
def test_whole_form_is_the_loop(rng, name, dtype):
    shape, voxel_um, size, box = CASES[name]
    image = (rng.random(shape) * 1000).astype(dtype)
    filtered = gd.deconvolve(image, None, "median", size=size, threshold=0.0, voxel_um=voxel_um, device="cpu")
    assert (filtered == by_loops(image, box)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(6, 12, 13), (31, 33)])
def test_conditional_form_follows_its_rule(rng, shape, dtype):
    """All at one brightness: there s is at least the noise of the image, as its 90 % smallest deviations show it."""
    image = rng.normal(1000, 20, shape)
    image[tuple(n // 2 for n in shape)] = 5000
    image = image.astype(dtype)
    box = (3,) * len(shape)
    given = image.astype(np.float32)
    median = by_loops(given, box)
    deviation = np.abs(given - median)
    local = 1.4826 * by_loops(deviation, box)
    for threshold in (2.0, 4.0):
        filtered = gd.deconvolve(image, None, "median", threshold=threshold, device="cpu")
        changed = filtered != given
        assert (filtered[changed] == median[changed]).all()
        assert changed.any()
        assert (deviation[changed] > threshold * local[changed]).all()
        # sd of a value less the median of 9 or 27 that hold it: about 20, known to 10 %
        assert (deviation[changed] > threshold * 20 * 0.7).all()
        assert changed[deviation > threshold * np.maximum(local, 20 * 1.3)].all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize(("kind", "ndim"), [("nuclei", 3), ("nuclei", 2), ("filaments", 3)])
def test_salt_and_pepper_go_and_little_else_changes(rng, kind, ndim, dtype):
    truth = phantom(kind, (16, 80, 75), (0.2, 0.1, 0.1), seed=2)
    blurred = ndimage.gaussian_filter(truth, (1.5, 1.2, 1.2))
    clean = rng.poisson(100 + 400 * blurred / blurred.max()).astype(dtype)
    clean, voxel_um = (clean, (0.2, 0.1, 0.1)) if ndim == 3 else (clean[8], (0.1, 0.1))
    hit = rng.random(clean.shape) < 0.01
    image = np.where(hit, rng.choice([0, 65535], clean.shape), clean).astype(dtype)
    filtered = gd.deconvolve(image, None, "median", voxel_um=voxel_um, device="cpu")
    before, after = (np.abs(a.astype(float) - clean) for a in (image, filtered))
    assert (filtered[hit & (image == 65535)] < 2 * clean.max()).all()
    assert np.mean(after[hit] < 0.5 * before[hit]) > 0.95
    others = ~hit
    assert np.mean(filtered[others] != clean[others]) < 0.01
    assert after[others].sum() < 0.01 * clean[others].sum()


def test_blurred_points_stay(rng):
    """A bead as wide as a PSF is no impulse, however bright; a hot voxel of the same height is."""
    z, y, x = np.ogrid[-6:7, -12:13, -12:13]
    bead = 3000 * np.exp(-((z / 1.5) ** 2 + (y / 1.5) ** 2 + (x / 1.5) ** 2) / 2)
    clean = rng.poisson(bead + 50).astype(np.float32)
    image = clean.copy()
    image[2, 3, 20] = 3000
    filtered = gd.deconvolve(image, None, "median", device="cpu")
    assert filtered[2, 3, 20] < 100
    assert filtered[6, 12, 12] == clean[6, 12, 12]
    assert filtered.sum() == pytest.approx(clean.sum(), rel=2e-3)


def test_single_photons_are_kept_where_the_gain_is_known(rng):
    """Nearly all voxels are 0 and so is their spread: only the camera tells that one photo-electron is no fault."""
    counts = rng.poisson(0.03, (8, 40, 41))
    image = (100 + 2.5 * counts).astype(np.float32)
    image[4, 20, 20] = 160
    camera = gd.Camera(offset=100.0, gain=2.5)
    filtered = gd.deconvolve(image, None, "median", camera=camera, device="cpu")
    assert filtered[4, 20, 20] == 0
    image[4, 20, 20] = 100
    expected = image - 100
    expected[counts > 4] = 0
    kept = np.ones(image.shape, bool)
    kept[4, 20, 20] = False
    assert (filtered == expected)[kept].all()
    blind = gd.deconvolve(image, None, "median", background=100.0, device="cpu")
    assert np.mean(blind[counts == 1] == 0) > 0.9


@pytest.mark.parametrize("edge", list(itertools.product((0, -1), repeat=3)))
def test_hot_voxels_in_corners(edge):
    image = np.full((5, 6, 7), 10.0, np.float32)
    image[edge] = 500
    assert (gd.deconvolve(image, None, "median", device="cpu") == 10).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 4}, "size is 4; it must be an odd"),
        ({"size": -3}, "size is -3"),
        ({"size": 2.5}, "size is 2.5; it must be a whole"),
        ({"threshold": -1.0}, "threshold is -1"),
        ({"threshold": float("inf")}, "threshold is inf"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        gd.Median(**options)
