"""Reach: over how many voxels what lies beside a place has a part in what is restored there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENERGY = 0.95  # of the PSF's light lies within its radius
LEFT_OUT = 1e-3  # of a filter's kernel, sum of absolute values, may lie beyond its reach
FARTHEST = 1024  # voxels that a filter's kernel is followed

Transfer = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]  # (H, L) -> filter


@dataclass(frozen=True, eq=False)
class Spread:
    """What a method needs to know of an axis to say how far it reaches along it.

    ``psf`` (z, y, x) or (y, x), None for methods without; ``voxel_um`` for each axis.
    """

    psf: NDArray[np.float32] | None
    axis: int
    voxel_um: tuple[float, ...]

    @property
    def scale(self) -> float:
        """The finest voxel size over that of the axis."""
        return min(self.voxel_um) / self.voxel_um[self.axis]

    @cached_property
    def radius(self) -> int:
        """The least r so that the planes within r voxels of the PSF's centre hold 95 % of its light."""
        assert self.psf is not None
        others = tuple(a for a in range(self.psf.ndim) if a != self.axis)
        light = self.psf.sum(axis=others, dtype=np.float64)
        distance = np.abs(np.arange(len(light)) - len(light) // 2)
        within = np.cumsum(np.bincount(distance, weights=light))
        return int(np.searchsorted(within, ENERGY * within[-1]))

    def of_filter(self, transfer: Transfer) -> int:
        """The least r so that 1e-3 of a filter's kernel lies farther than r along the axis; at most 1024.

        ``transfer(H, L)`` is the filter for the PSF's transfer function and that of the Laplacian (see
        `laplacian_tables`).  It is looked at in the plane of the axis and z (for z, of z and x), where the frequencies
        lie that a widefield PSF does not pass, at frequency 0 of the third axis.
        """
        assert self.psf is not None
        last = self.psf.ndim - 1
        kept = sorted({self.axis, 0 if self.axis else last})
        plane = self.psf.sum(axis=tuple(a for a in range(self.psf.ndim) if a not in kept), dtype=np.float64)
        along = kept.index(self.axis)
        shape = tuple(2 * FARTHEST if i == along else 2 * n for i, n in enumerate(plane.shape))
        field = np.zeros(shape)
        places = [(np.arange(n) - n // 2) % m for n, m in zip(plane.shape, shape, strict=True)]
        np.add.at(field, np.ix_(*places), plane)
        finest = min(self.voxel_um)
        laplacian = np.zeros(shape)
        for i, (axis, m) in enumerate(zip(kept, shape, strict=True)):
            waves = (finest / self.voxel_um[axis]) ** 2 * (2 - 2 * np.cos(2 * np.pi * np.fft.fftfreq(m)))
            laplacian += waves.reshape([-1 if j == i else 1 for j in range(2)])
        kernel = np.abs(np.fft.ifftn(transfer(np.fft.fftn(field), laplacian)))
        line = kernel.sum(axis=1 - along)
        distance = np.minimum(np.arange(len(line)), len(line) - np.arange(len(line)))
        beyond = np.bincount(distance, weights=line)[::-1].cumsum()[::-1]
        return int(np.argmax(beyond <= LEFT_OUT)) if beyond[-1] <= LEFT_OUT else FARTHEST
