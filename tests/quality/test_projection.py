"""Projections that are read a few planes at a time, against NumPy on the whole."""

import numpy as np
import pytest

from gpudecon.errors import InputError
from gpudecon.image import Image
from gpudecon.quality import projection
from gpudecon.quality.projection import Stack, middle, project


def test_a_part_of_a_channel_of_a_time_series(rng, monkeypatch):
    monkeypatch.setattr(projection, "PLANES", 3)
    data = rng.integers(0, 60000, (2, 3, 11, 14, 9)).astype(np.uint16)
    stack = Stack(Image(data, "tczyx"), t=1, c=2, scale=0.5, offset=-7.0)
    box = (slice(2, 10), slice(1, 12), slice(3, 9))
    part = data[1, 2, 2:10, 1:12, 3:9].astype(np.float64) * 0.5 - 7
    seen = project(stack, box)
    np.testing.assert_allclose(seen.top, part.max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(seen.side, part.max(axis=1), rtol=1e-6)
    assert (seen.low, seen.mean, seen.high) == pytest.approx((part.min(), part.mean(), part.max()), rel=1e-6)
    assert data[1, 2][seen.place] * 0.5 - 7 == part.max()


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_counted_and_left_out(rng):
    data = rng.random((9, 6, 7)).astype(np.float32) - 0.5
    data[3, 2, 1], data[5, :, 4] = np.nan, np.inf
    seen = project(Stack(Image(data, "zyx")), middle(data.shape))
    whole = data[np.isfinite(data)]
    assert (seen.low, seen.mean, seen.high) == pytest.approx((whole.min(), whole.mean(), whole.max()), rel=1e-5)
    assert seen.missing == 7
    assert data[seen.place] == whole.max()
    assert seen.side[5, 4] == whole.min()  # all of this line is missing
    data[...] = np.nan
    with pytest.raises(InputError, match="no finite value"):
        project(Stack(Image(data, "zyx")), middle(data.shape))


def test_planes(rng):
    data = rng.random((14, 9)).astype(np.float32)
    seen = project(Stack(Image(data, "yx")), middle((14, 9)))
    np.testing.assert_array_equal(seen.top, data)
    np.testing.assert_array_equal(seen.side[0], data.max(axis=0))


@pytest.mark.parametrize("shape", [(300, 2000, 511), (7, 513, 3), (1000, 999)])
def test_the_middle_is_of_bounded_size_and_as_far_from_both_faces(shape):
    box = middle(shape)
    for part, n, most in zip(box, (1, *shape)[-3:], projection.MOST, strict=True):
        assert part.stop - part.start == min(n, most)
        assert abs(part.start - (n - part.stop)) <= 1


def test_only_what_is_shown_is_read():
    class Huge:
        shape, dtype, read = (4000, 40000, 40000), np.dtype(np.uint16), 0

        def __getitem__(self, region):
            block = np.ones([part.stop - part.start for part in region], self.dtype)
            self.read += block.size
            return block

    image = Image(Huge(), "zyx")
    project(Stack(image), middle(image.spatial_shape))
    assert image.data.read == np.prod(projection.MOST)
