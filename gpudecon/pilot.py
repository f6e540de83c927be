"""The pilot: samples of an image too large to be looked at as a whole, from which its constants are decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.quality.background import percentile_of_darkest, smoothed
from gpudecon.recording import Conditions, checked_image, checked_range

Box = tuple[slice, ...]
Place = TypeVar("Place")

LARGEST_REGION = 1 << 23  # voxels
REGIONS = 8
LEAST_SIDE = 128  # lateral voxels below which regions are rather cut along z
SAMPLE = 1 << 18  # values of each region that its statistics are taken from
# Fractional parts of the multiples of these fill a cube evenly, however many are taken (Roberts 2018); for one, two and
# three dimensions the powers of 1 / x with x^(d + 1) = x + 1.
EVEN = {2: (0.7548776662466927, 0.5698402909980532), 3: (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)}


def pilot_regions(shape: tuple[int, ...], voxels: int = LARGEST_REGION, count: int = REGIONS) -> list[Box]:
    """Boxes of at most ``voxels`` spread evenly over an image (z, y, x) or (y, x): itself, if it is no larger.

    Always the same for the same arguments; the first lies in the middle.  They are cut along y and x, and along z
    only where they would become narrower than 128 voxels.
    """
    size = list(shape)
    while math.prod(size) > voxels:
        lateral = max(range(len(size) - 2, len(size)), key=lambda axis: size[axis])
        axis = lateral if size[lateral] > LEAST_SIDE or len(size) == 2 else int(np.argmax(size))
        size[axis] = -(-size[axis] // 2)
    boxes = []
    for i in range(count if tuple(size) != tuple(shape) else 1):
        places = [(0.5 + i * step) % 1 for step in EVEN[len(shape)]]
        starts = [round(place * (n - s)) for place, n, s in zip(places, shape, size, strict=True)]
        boxes.append(tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True)))
    return boxes


def survey(
    read: Callable[[Place], Array], places: Sequence[Place], conditions: Conditions
) -> tuple[Array, dict[str, list[float]]]:
    """(the sample with most structure, what is known of the whole image from all of them).

    ``read(place)`` returns a sample (z, y, x) or (y, x).  Known are the background, the highest value, and the mean
    of the light with and without what lies below the background, by the names that `Record` has for them.
    """
    if hasattr(conditions.background, "shape"):
        raise InputError("An image of the background is for an image that is restored whole; give a number, or 'auto'.")
    if not places:
        raise InputError("No place was given to sample the image at.")
    best, structure, highest = None, -1.0, -math.inf
    values: list[NDArray[np.float32]] = []
    dark: list[NDArray[np.float32]] = []
    for place in places:
        sample = checked_image(read(place))
        measured = None if conditions.saturation is None else ~(sample >= conditions.saturation)
        if measured is not None and not bool(measured.any()):
            continue
        highest = max(highest, checked_range(sample if measured is None else sample[measured])[1])
        seen = smoothed(sample, measured)
        spread = float(seen.std(dtype=np.float64))
        if spread > structure:
            best, structure = sample, spread
        dark.append(_strided(seen))
        values.append(_strided(sample if measured is None else sample[measured]))
    if best is None:
        raise InputError(f"All samples of the image are saturated (from {conditions.saturation:g} on).")
    if isinstance(conditions.background, str):
        background = percentile_of_darkest(np.concatenate(dark))
    else:
        background = float(conditions.background)
    floor = background if conditions.camera is None else max(background, conditions.camera.offset)
    light = np.concatenate(values).astype(np.float64) - floor
    known = {
        "background": [background],
        "highest": [highest],
        "level": [float(np.maximum(light, 0).mean())],
        "mean": [float(light.mean())],
    }
    return best, known


def _strided(values: Array) -> NDArray[np.float32]:
    """About `SAMPLE` of the values, evenly, on the host."""
    flat = values.ravel()[:: max(1, values.size // SAMPLE)]
    return np.array(flat.get() if hasattr(flat, "get") else flat, np.float32)  # no view: the whole sample would stay
