"""Specimens with known truth and the images that a microscope and its camera would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import get_backend
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.forward import ForwardModel
from gpudecon.psf.psf import PSF

Volume = NDArray[np.float32]


def specimen(
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    *,
    seed: int,
    filaments: int = 14,
    beads: int = 30,
    shells: int = 5,
) -> Volume:
    """Winding filaments, point-like beads and hollow shells in a volume (z, y, x), brightest structure about 1.

    Structures may lie partly outside.  Same arguments, same specimen.
    """
    rng = np.random.default_rng(seed)
    size = np.array(shape) * np.array(voxel_um)
    volume = np.zeros(shape, np.float32)
    for _ in range(filaments):
        _spots(volume, _walk(rng, size), voxel_um, radius_um=0.06, height=rng.uniform(0.5, 1.0))
    for _ in range(beads):
        _spots(volume, rng.uniform(0, 1, (1, 3)) * size, voxel_um, radius_um=0.08, height=rng.uniform(0.7, 1.0))
    for _ in range(shells):
        radius = rng.uniform(0.1, 0.2) * size.min()
        _shell(volume, rng.uniform(0.05, 0.95, 3) * size, voxel_um, radius, height=rng.uniform(0.06, 0.12))
    return volume


PHANTOMS = ("filaments", "beads", "shells", "nuclei")


def phantom(name: str, shape: tuple[int, int, int], voxel_um: tuple[float, float, float], *, seed: int) -> Volume:
    """One kind of structure, about 1 at its brightest, in a volume (z, y, x); see `PHANTOMS` for the names.

    "filaments", "beads" and "shells" are sparse and finer than a PSF; "nuclei" fill much of the volume with large
    textured blobs.  Same arguments, same phantom.
    """
    if name == "nuclei":
        return _nuclei(shape, voxel_um, np.random.default_rng(seed))
    if name not in PHANTOMS:
        raise InputError(f"Unknown phantom {name!r}; use one of {', '.join(PHANTOMS)}.")
    counts = {"filaments": 14, "beads": 60, "shells": 12}
    chosen = {kind: counts[kind] * (kind == name) for kind in counts}
    volume = specimen(shape, voxel_um, seed=seed, **chosen)
    return np.asarray(volume / volume.max(), np.float32)


def _nuclei(shape: tuple[int, int, int], voxel_um: tuple[float, ...], rng: np.random.Generator) -> Volume:
    """Ellipsoids with a soft rim, a texture of about 0.3 um within and a few dark nucleoli."""
    from scipy import ndimage

    size = np.array(shape) * np.array(voxel_um)
    grid = [np.arange(n) * v for n, v in zip(shape, voxel_um, strict=True)]
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.3 / np.array(voxel_um), mode="wrap")
    texture = np.clip(1 + 0.35 * noise / noise.std(), 0.1, None)
    volume = np.zeros(shape)
    for _ in range(max(8, int(0.5 * size.prod() / 12.0))):
        axes = rng.uniform(0.8, 1.6, 3) * (0.8, 1, 1)
        centre = rng.uniform(0, 1, 3) * size
        distance = _distance(grid, centre, axes)
        blob = rng.uniform(0.4, 1.0) / (1 + np.exp(np.minimum((distance - 1) / 0.05, 60)))
        for _ in range(3):
            blob *= 1 - 0.7 * np.exp(-((_distance(grid, centre + rng.uniform(-0.4, 0.4, 3), np.full(3, 0.3))) ** 2))
        np.maximum(volume, blob, out=volume)
    volume *= texture
    return np.asarray(volume / volume.max(), np.float32)


def _distance(grid: list[NDArray[Any]], centre: NDArray[Any], axes: NDArray[Any]) -> NDArray[Any]:
    z, y, x = (((g - c) / a) ** 2 for g, c, a in zip(grid, centre, axes, strict=True))
    return np.asarray(np.sqrt(z[:, None, None] + y[:, None] + x))


def _walk(rng: np.random.Generator, size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points every 0.05 um along a curve that bends slowly and lies flatter than it is wide, as in a cell."""
    steps, step = int(1.2 * size.max() / 0.05), 0.05
    direction = rng.normal(size=3) * (0.35, 1, 1)
    points = np.empty((steps, 3))
    point = rng.uniform(0.1, 0.9, 3) * size
    for i in range(steps):
        direction = direction / np.linalg.norm(direction) + rng.normal(scale=0.06, size=3) * (0.35, 1, 1)
        point = point + step * direction / np.linalg.norm(direction)
        points[i] = point
    return points


def _spots(
    volume: Volume, points: NDArray[np.float64], voxel_um: tuple[float, ...], *, radius_um: float, height: float
) -> None:
    """Take the maximum of the volume and of Gaussian spots at ``points`` (um)."""
    sigma = np.maximum(radius_um, 0.6 * np.array(voxel_um))
    reach = np.ceil(3 * sigma / voxel_um).astype(int)
    for point in points:
        centre = np.rint(point / voxel_um).astype(int)
        low = np.maximum(centre - reach, 0)
        high = np.minimum(centre + reach + 1, volume.shape)
        if np.any(low >= high):
            continue
        distance = [
            ((np.arange(a, b) * v - p) / s) ** 2
            for a, b, v, p, s in zip(low, high, voxel_um, point, sigma, strict=True)
        ]
        spot = height * np.exp(-0.5 * (distance[0][:, None, None] + distance[1][:, None] + distance[2]))
        box = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.maximum(box, spot, out=box, casting="same_kind")


def _shell(
    volume: Volume, centre: NDArray[np.float64], voxel_um: tuple[float, ...], radius: float, *, height: float
) -> None:
    """Add a hollow sphere whose wall has a Gaussian profile of 0.1 um, or 0.8 voxels if these are larger."""
    grid = [(np.arange(n) * v - c) ** 2 for n, v, c in zip(volume.shape, voxel_um, centre, strict=True)]
    distance = np.sqrt(grid[0][:, None, None] + grid[1][:, None] + grid[2])
    wall = max(0.1, 0.8 * max(voxel_um))
    np.maximum(volume, height * np.exp(-0.5 * ((distance - radius) / wall) ** 2), out=volume, casting="same_kind")


def record(photons: NDArray[Any], camera: Camera, rng: np.random.Generator) -> NDArray[np.uint16]:
    """uint16 grey values of an expected number of photo-electrons per voxel: shot noise, read noise, rounding."""
    electrons = rng.poisson(np.maximum(photons, 0)) + rng.normal(scale=camera.read_noise, size=photons.shape)
    grey = np.rint(camera.offset + camera.gain * electrons)
    if grey.max() > np.iinfo(np.uint16).max:
        raise InputError("The simulated camera saturates: use fewer photons or a smaller gain.")
    recorded: NDArray[np.uint16] = np.maximum(grey, 0).astype(np.uint16)
    return recorded


def expose(
    truth: Volume, psf: PSF, *, peak_photons: float, haze_photons: float, camera: Camera, seed: int
) -> tuple[NDArray[np.uint16], float]:
    """Image a specimen: (grey values of the whole volume, photo-electrons per unit of truth).

    The blurred specimen is scaled to ``peak_photons`` at its brightest voxel; ``haze_photons`` are added everywhere.
    Opposite faces touch (periodic); crop the result by the PSF's reach for a frame with specimen beyond its edges.
    """
    backend = get_backend("cpu")
    model = ForwardModel(backend, (truth.shape[0], truth.shape[1], truth.shape[2]), psf.array, "periodic")
    estimate = model.empty()
    estimate[...] = truth
    blurred = np.maximum(model.blur(estimate), 0)
    brightest = float(blurred.max())
    if not brightest > 0:
        raise InputError("The specimen is dark everywhere and cannot be scaled to peak_photons; give one with light.")
    per_unit = peak_photons / brightest
    return record(blurred * per_unit + haze_photons, camera, np.random.default_rng(seed)), per_unit
