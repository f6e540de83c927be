"""Pixels that cannot be read: only content that is no image is called damaged."""

import gzip
import zlib

import numpy as np
import pytest

from gpudecon.errors import InputError, RunError
from gpudecon.io.pixels import FilePixels


class Failing:
    """A source that raises ``error``."""

    shape, dtype = (5, 7), np.dtype("u2")

    def __init__(self, error):
        self.error = error

    def __getitem__(self, index):
        raise self.error


def pixels(error):
    return FilePixels(Failing(error), (0, 1), "a.zarr")


@pytest.mark.parametrize(
    "error", [ValueError("x"), EOFError("x"), RuntimeError("x"), zlib.error("x"), gzip.BadGzipFile("x")]
)
def test_damaged(error):
    with pytest.raises(InputError, match=r"^a\.zarr is damaged: .*: x\); get a fresh copy"):
        np.asarray(pixels(error))


@pytest.mark.parametrize("error", [PermissionError(13, "Denied"), TimeoutError(), OSError(5, "I/O"), Exception("503")])
def test_not_to_be_had(error):
    with pytest.raises(
        RunError, match=rf"^The pixels of a\.zarr could not be read \({type(error).__name__}.*try again"
    ):
        np.asarray(pixels(error))


def test_too_large():
    with pytest.raises(MemoryError, match=r"^too large$"):
        np.asarray(pixels(MemoryError("too large")))
