"""Pixels of a file seen on the canonical axes "tczyx": an index permutation, no copy of the whole."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.errors import InputError, RunError
from gpudecon.image import AXES, Pixels, Region

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ASK_FOR_AXES = "name its axes (--axes tczyx on the command line, axes= in Python)"

# What codecs raise for content that is none of theirs; a disk, a network and missing permissions raise other errors.
DAMAGE = (ValueError, EOFError, RuntimeError, zlib.error, gzip.BadGzipFile)


class FilePixels:
    """An array of a file as `gpudecon.image.Pixels`.

    ``dims[i]`` is the dimension of ``source`` that is axis i; dimensions that are not named there have length 1.
    ``source`` is read through ``source[index]``, and what it raises becomes one sentence about ``path``: `InputError`
    for content that is damaged, `RunError` where it was not to be had.
    """

    def __init__(self, source: Any, dims: tuple[int, ...], path: Path | str) -> None:
        self._source = source
        self._dims = dims
        self._path = path
        self.shape: tuple[int, ...] = tuple(int(source.shape[d]) for d in dims)
        self.dtype: np.dtype[Any] = np.dtype(source.dtype).newbyteorder("=")

    def __getitem__(self, region: Region, /) -> NDArray[Any]:
        index: list[Any] = [0] * len(self._source.shape)
        for dim, part in zip(self._dims, region, strict=True):
            index[dim] = part
        try:
            block = np.asarray(self._source[tuple(index)], dtype=self.dtype)
        except MemoryError:
            raise
        except DAMAGE as error:
            raise InputError(
                f"{self._path} is damaged: its pixels cannot be read ({type(error).__name__}: {error}); "
                "get a fresh copy of it."
            ) from error
        except Exception as error:  # stores, networks and the rarer codecs raise all kinds
            raise RunError(
                f"The pixels of {self._path} could not be read ({type(error).__name__}: {error}); see whether it is "
                "there and may be read, and try again."
            ) from error
        present = sorted(self._dims)
        return block.transpose([present.index(d) for d in self._dims])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("Pixels of a file are always copied into memory.")
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype=dtype)


@dataclass(frozen=True)
class Scaled:
    """``pixels`` in uint16: value = stored * ``scale`` + ``offset``, rounded to the nearest; read when indexed.

    Values beyond the range get the nearest end of it.
    """

    pixels: Pixels
    scale: float
    offset: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16)

    def __getitem__(self, region: Region, /) -> NDArray[Any]:
        block = self.pixels[region].astype(np.float64)
        block -= self.offset
        block /= self.scale
        return np.clip(np.rint(block, out=block), 0, 65535, out=block).astype(np.uint16)


@dataclass(frozen=True)
class Converted:
    """``pixels`` in another type; integers are rounded, and values that do not fit an InputError."""

    pixels: Pixels
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def __getitem__(self, region: Region, /) -> NDArray[Any]:
        block = np.asarray(self.pixels[region])
        if self.dtype.kind in "iu" and not np.can_cast(block.dtype, self.dtype, "safe"):
            block = np.rint(block)
            low, high, limits = block.min(), block.max(), np.iinfo(self.dtype)
            if not (low >= limits.min and high <= limits.max):  # also where NaN made both of them NaN
                raise InputError(
                    f"Values from {low} to {high} do not fit into {self.dtype}; scale them or write float32."
                )
        return block.astype(self.dtype, copy=False)


def fitted(block: NDArray[Any], region: Region, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """``block`` in the shape of ``region`` of an array of ``shape``; it may lack axes of length 1, and nothing else."""
    wanted = tuple(len(range(*part.indices(n))) for part, n in zip(region, shape, strict=True))
    if [n for n in block.shape if n != 1] != [n for n in wanted if n != 1] or block.dtype != dtype:
        raise ValueError(
            f"The block is {block.dtype} of shape {block.shape}; the region takes {dtype} of shape {wanted}."
        )
    return block.reshape(wanted)


def canonical_axes(
    file_axes: str, shape: tuple[int, ...], *, given: str | None, kept: str, path: Path | str
) -> tuple[str, tuple[int, ...]]:
    """The axes of an image as a subset of "tczyx" in that order, and the dimension of the file that each one is.

    ``file_axes`` has one letter per dimension of ``shape``, lower case; letters other than "tczyx" are unknown.
    Dimensions of length 1 are dropped unless their letter is in ``kept``.  ``given`` is what the user says; it counts
    all dimensions or those that are left after dropping, and then nothing is guessed.  Otherwise one unknown axis
    beside y and x is taken as z, since a bare series of planes is a stack far more often than anything else.
    """
    remaining = [d for d, n in enumerate(shape) if n > 1 or file_axes[d] in kept]
    if given is not None:
        letters, remaining = _given(given, shape, remaining, path)
    else:
        letters = "".join(file_axes[d] for d in remaining)
        if "s" in letters and shape[file_axes.index("s")] in (3, 4):
            raise InputError(
                f"{path} is a colour photograph (RGB): deconvolution needs the detector's grey values, so export each "
                "channel as grey values, or, if the colours are channels, " + ASK_FOR_AXES + "."
            )
        unknown = [a for a in letters if a not in AXES]
        if len(letters) == 3 and len(unknown) == 1 and unknown[0] in "qi":
            letters = letters.replace(unknown[0], "z")
        elif unknown:
            raise InputError(f"The axes of {path}, of shape {shape}, are not all known; {ASK_FOR_AXES}.")
    if len(set(letters)) != len(letters) or not set("yx") <= set(letters):
        raise InputError(
            f"{path}, of shape {shape}, has axes {letters!r}, but needs y and x and each once; {ASK_FOR_AXES}."
        )
    order = sorted(range(len(letters)), key=lambda i: AXES.index(letters[i]))
    return "".join(letters[i] for i in order), tuple(remaining[i] for i in order)


def _given(given: str, shape: tuple[int, ...], remaining: list[int], path: Path | str) -> tuple[str, list[int]]:
    letters = given.lower()
    if not set(letters) <= set(AXES):
        raise InputError(f"The axes are given as {given!r}; use the letters of {AXES!r}, each at most once.")
    if len(letters) == len(shape):
        return letters, list(range(len(shape)))
    if len(letters) == len(remaining):
        return letters, remaining
    raise InputError(
        f"The axes are given as {given!r} but {path} has shape {shape}; give one letter of {AXES!r} per dimension."
    )


def check_sample_type(dtype: np.dtype[Any], path: Path | str) -> None:
    """Refuse pixels that are no grey values."""
    if dtype.kind not in "iuf":
        raise InputError(f"{path} holds {dtype} pixels; deconvolution needs grey values, integer or floating point.")
