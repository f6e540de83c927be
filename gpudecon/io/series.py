"""A series of files, one for each plane, channel or time point, read as one image."""

from __future__ import annotations

import glob
import itertools
import math
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.errors import InputError
from gpudecon.image import AXES, Channel, Image, Region
from gpudecon.io.ome_zarr import read_zarr
from gpudecon.io.pixels import ASK_FOR_AXES
from gpudecon.io.tiff import read_tiff

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPEN_FILES = 128  # at once; those that were used last
NAMED = 3  # files that an error lists
_FIELD = re.compile(r"\{([^{}]*)\}")


def is_pattern(path: str) -> bool:
    """Whether ``path`` is the pattern of a series and not the name of a file."""
    return _FIELD.search(path) is not None and not Path(path).exists()


@dataclass(frozen=True)
class Series:
    """The files that ``pattern`` names, such as "scan/t{t}/{c}_z{z}.tif", where braces stand for an index.

    t and z are numbers, in even steps from the first on; c is a number or a name.  There is one file for every
    combination of the values that occur.
    """

    pattern: str

    def __post_init__(self) -> None:
        unknown = [name for name in _FIELD.findall(self.pattern) if name not in tuple("tcz")]
        if unknown:
            raise InputError(f"The pattern {self.pattern} has {{{unknown[0]}}}; braces name one of t, c, z.")
        self._check_complete()

    @cached_property
    def axes(self) -> str:
        """What the files differ in, in the order of "tcz"."""
        return "".join(a for a in AXES if f"{{{a}}}" in self.pattern)

    @cached_property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """Along each of `axes`, what stands for its indices."""
        return tuple(tuple(sorted(set(along))) for along in zip(*self._found, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(along) for along in self.values)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """All files, in C order of `axes`."""
        return tuple(self._found[key][0] for key in itertools.product(*self.values))

    @cached_property
    def _found(self) -> dict[tuple[Any, ...], list[Path]]:
        """The files of each combination."""
        texts = _FIELD.split(self.pattern)
        wanted, expression, seen = "", "", set()
        for literal, name in itertools.zip_longest(texts[::2], texts[1::2]):
            wanted += glob.escape(literal)
            expression += re.escape(literal)
            if name is not None:
                wanted += "*"
                expression += f"(?P={name})" if name in seen else f"(?P<{name}>{'[^/]+?' if name == 'c' else '[0-9]+'})"
                seen.add(name)
        paths = sorted(glob.glob(wanted))  # noqa: PTH207 -- Path.glob wants to know where the pattern begins
        matches = {path: match for path in paths if (match := re.fullmatch(expression, path))}
        numbered = {a for a in self.axes if all(match[a].isdecimal() for match in matches.values())}
        found: dict[tuple[Any, ...], list[Path]] = {}
        for path, match in matches.items():
            key = tuple(int(match[a]) if a in numbered else match[a] for a in self.axes)
            found.setdefault(key, []).append(Path(path))
        if not found:
            raise InputError(f"No file matches the pattern {self.pattern}; check the path.")
        return found

    def _check_complete(self) -> None:
        doubled = next((paths for paths in self._found.values() if len(paths) > 1), None)
        if doubled:
            raise InputError(
                f"{doubled[0]} and {doubled[1]} are the same index of the pattern {self.pattern}; remove one of them."
            )
        expected = [
            along if a == "c" else range(along[0], along[-1] + 1, math.gcd(*np.diff(along).tolist()) or 1)
            for a, along in zip(self.axes, self.values, strict=True)
        ]
        missing = [key for key in itertools.product(*expected) if key not in self._found]
        if missing:
            named = "; ".join(
                ", ".join(f"{a} = {value}" for a, value in zip(self.axes, key, strict=True)) for key in missing[:NAMED]
            )
            more = f", and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise InputError(f"Files of the pattern {self.pattern} are missing: {named}{more}; complete the series.")


def read_series(pattern: str, axes: str | None = None) -> Image:
    """The image that a series of TIFF files or OME-Zarr folders is, read lazily; ``axes`` are those of one file.

    Voxel size and time step are those of the first file.  Others are opened when they are read, and refused then if
    their shape or type differs.
    """
    series = Series(pattern)
    first = _read_file(series.paths[0], axes)
    both = [a for a in series.axes if first.sizes[a] > 1]
    if both:
        raise InputError(
            f"The axis {both[0]} is in the pattern {pattern}, but {series.paths[0]} itself holds "
            f"{first.sizes[both[0]]} of it; leave it out of the pattern, or {ASK_FOR_AXES} for one file."
        )
    letters = "".join(a for a in AXES if a in series.axes or a in first.axes)
    pixels = SeriesPixels(series, first, letters, axes)
    channels = first.channels
    if "c" in series.axes:
        channels = _channels(series, axes)
    known = first.voxel_um if ("z" in first.axes) == ("z" in letters) else None
    return replace(first, data=pixels, axes=letters, voxel_um=known, channels=channels, name="", provenance={})


def _read_file(path: Path, axes: str | None) -> Image:
    return read_zarr(path, axes) if path.is_dir() else read_tiff(path, axes)


def _channels(series: Series, axes: str | None) -> tuple[Channel, ...]:
    """Of the first file of each channel; one without a name has that of the pattern."""
    c = series.axes.index("c")
    stride = math.prod(series.shape[c + 1 :])
    channels = []
    for i, value in enumerate(series.values[c]):
        own = _read_file(series.paths[i * stride], axes).channels
        channel = own[0] if own else Channel()
        channels.append(channel if channel.name or isinstance(value, int) else replace(channel, name=value))
    return tuple(channels) if any(channel != Channel() for channel in channels) else ()


class SeriesPixels:
    """The pixels of a series on ``axes`` as `gpudecon.image.Pixels`; any number of threads may read."""

    def __init__(self, series: Series, first: Image, axes: str, file_axes: str | None) -> None:
        self._series = series
        self._outer = tuple(axes.index(a) for a in series.axes)
        self._axes, self._inner_axes, self._inner_shape = axes, first.axes, first.shape
        sizes = first.sizes | dict(zip(series.axes, series.shape, strict=True))
        self.shape = tuple(sizes[a] for a in axes)
        self.dtype = first.dtype
        self._open = lru_cache(OPEN_FILES)(lambda position: self._opened(position, file_axes))

    def _opened(self, position: int, axes: str | None) -> Image:
        path = self._series.paths[position]
        image = _read_file(path, axes)
        if (image.shape, image.axes, image.dtype) != (self._inner_shape, self._inner_axes, self.dtype):
            raise InputError(
                f"{path} is {image.dtype} of shape {image.shape}, but {self._series.paths[0]} is {self.dtype} of shape "
                f"{self._inner_shape}; a series has files of one shape and type."
            )
        return image

    def __getitem__(self, region: Region, /) -> NDArray[Any]:
        spans = [range(n)[part] for n, part in zip(self.shape, region, strict=True)]
        block = np.empty([len(span) for span in spans], self.dtype)
        by_file = np.moveaxis(block, self._outer, range(len(self._outer)))
        inner = tuple(slice(None) if a in self._series.axes else region[self._axes.index(a)] for a in self._inner_axes)
        for index in np.ndindex(*by_file.shape[: len(self._outer)]):
            position = np.ravel_multi_index(
                [spans[d][i] for d, i in zip(self._outer, index, strict=True)], self._series.shape
            )
            part = self._open(int(position)).data[inner]
            by_file[index] = part.reshape(by_file.shape[len(self._outer) :])
        return block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("Pixels of files are always copied into memory.")
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype=dtype)
