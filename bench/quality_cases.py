"""What the quality benchmark restores: phantoms in three microscopes at three light levels, and the hollow bars."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_variants import Variant
from rows import HERE

import gpudecon as gd
from gpudecon.forward import Edges
from gpudecon.simulate import expose, phantom

Shape = tuple[int, int, int]
Volume = NDArray[Any]

SHARED_DATA = HERE.parents[1] / "shared" / "data"
VOXEL = (0.25, 0.1, 0.1)
OPTICS: dict[str, gd.Optics] = {
    "widefield": gd.Optics(na=1.2, emission_nm=520, immersion_index=1.33),
    "confocal": gd.Optics(
        na=1.2, emission_nm=520, immersion_index=1.33, modality="confocal", excitation_nm=488, pinhole_au=1.0
    ),
    "light-sheet": gd.Optics(
        na=0.8, emission_nm=520, immersion_index=1.33, modality="light-sheet", sheet_na=0.1, excitation_nm=488
    ),
}
DENSE = ("nuclei",)  # the other phantoms are sparse
CAMERA = gd.Camera(offset=100.0, gain=2.0, read_noise=1.0)
HAZE = 10.0  # photo-electrons of background per voxel


@dataclass(frozen=True)
class Case:
    """An image with its truth and what a restoration is told; ``labels`` name it in rows."""

    labels: Mapping[str, Any]
    image: Volume
    truth: Volume
    psf: gd.PSF
    voxel_um: tuple[float, float, float]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def restore(
        self,
        variant: Variant,
        *,
        iterations: int | None = None,
        callback: Callable[..., object] | None = None,
        **more: Any,
    ) -> Volume:
        """The whole call that a user would make, with everything that the method does."""
        options = {**variant.options, **({} if iterations is None or not variant.limit else {"iterations": iterations})}
        return gd.deconvolve(
            self.image,
            self.psf if variant.made().needs_psf else None,
            variant.method,
            voxel_um=self.voxel_um,
            callback=callback,
            divergence_every=0,
            **self.conditions,
            **more,
            **options,
        )


def simulated(
    optic: str,
    name: str,
    photons: float,
    frame: Shape,
    window: Shape,
    *,
    is_cut: bool = True,
    edges: Edges = "extend",
    seed: int = 1,
) -> Case:
    """A frame out of a specimen that is larger by the PSF's window, so that structures and their light cross its faces.

    Or, if not ``is_cut``, a specimen that ends a quarter of the window inside of the faces.  ``photons`` at the
    brightest voxel of the blurred specimen, and `HAZE` everywhere.  ``seed`` is the specimen's, the noise has the next.
    """
    size = tuple(n + 2 * (w // 2) for n, w in zip(frame, window, strict=True))
    inside = tuple(slice(w // 2, w // 2 + n) for n, w in zip(frame, window, strict=True))
    truth, psf = _specimen(name, size, seed), _psf(optic, window)
    if not is_cut:
        core = tuple(n - w // 2 for n, w in zip(frame, window, strict=True))
        margins = [((n - c) // 2, n - c - (n - c) // 2) for n, c in zip(size, core, strict=True)]
        truth = np.pad(_specimen(name, core, seed), margins)
    grey, _ = expose(truth, psf, peak_photons=photons, haze_photons=HAZE, camera=CAMERA, seed=seed + 1)
    place = {"shape": frame, "is_cut": is_cut, "edges": edges}
    return Case(
        {"optic": optic, "phantom": name, "photons": photons, "seed": seed, **place},
        grey[inside],
        truth[inside],
        psf,
        VOXEL,
        {"background": CAMERA.offset + CAMERA.gain * HAZE, "camera": CAMERA, "edges": edges},
    )


@functools.lru_cache
def _specimen(name: str, shape: Shape, seed: int) -> Volume:
    return phantom(name, shape, VOXEL, seed=seed)


@functools.lru_cache
def _psf(optic: str, window: Shape) -> gd.PSF:
    return gd.theoretical_psf(OPTICS[optic], window, VOXEL)


def bars(data: Path, edges: Edges, most: Shape) -> Case:
    """The hollow bars, cut in the middle to no more than ``most`` voxels; their voxel size is not stated."""
    import tifffile

    stacks = [tifffile.imread(data / f"bars-25pct_{part}.tif") for part in ("data", "actual", "kernel")]
    image, truth, kernel = (_middle(stack.astype(np.float32), most) for stack in stacks)
    voxel = (1.0, 1.0, 1.0)
    psf = gd.PSF(kernel / kernel.sum(), voxel)
    return Case({"shape": image.shape, "edges": edges}, image, truth, psf, voxel, {"edges": edges})


def _middle(stack: Volume, most: Shape) -> Volume:
    """The part around index n // 2, which stays in the middle."""
    parts = []
    for n, m in zip(stack.shape, most, strict=True):
        kept = min(n, m)
        start = n // 2 - kept // 2
        parts.append(slice(start, start + kept))
    return np.ascontiguousarray(stack[tuple(parts)])
