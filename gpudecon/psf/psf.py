"""PSF: the image of a point, on a voxel grid, centred at n // 2 and of sum 1."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import checked_voxel_um
from gpudecon.psf.radial_average import radial_mean

# Sums further from 1 than this are normalised with a warning; below it is rounding.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class PSF:
    """A point spread function, (z, y, x) or (y, x), with its centre at n // 2 on every axis, odd or even.

    ``array`` becomes float32 and is divided by its sum.  ``voxel_um`` has an entry per axis; None says that the PSF is
    on the grid of the image it will be used for.  ``origin`` tells records what it was made of, as JSON can hold it:
    the file of a measured one, model and optics of a theoretical one; nothing depends on it.  Raises `InputError` for
    NaN, negative values and an empty or zero array: `gpudecon.read_psf` repairs what measurement brings along.
    """

    array: NDArray[np.float32]
    voxel_um: tuple[float, ...] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = np.asarray(self.array)
        if given.dtype.kind not in "uif":
            raise InputError(f"The PSF holds {given.dtype}; it must hold real numbers.")
        if given.ndim not in (2, 3) or 0 in given.shape:
            raise InputError(f"The PSF has shape {given.shape}; it must be (z, y, x) or (y, x).")
        try:
            object.__setattr__(self, "origin", json.loads(json.dumps(dict(self.origin))))
        except (TypeError, ValueError) as error:
            raise InputError(f"The PSF's origin is {self.origin!r}; give what JSON can hold ({error}).") from error
        array = given.astype(np.float64)
        if not np.isfinite(array).all():
            raise InputError(
                f"The PSF holds {int((~np.isfinite(array)).sum())} NaN or infinite values; give finite ones."
            )
        if array.min() < 0:
            raise InputError(
                f"The PSF holds negative values (lowest {array.min():.3g}); subtract its background and clip, "
                "or load it with read_psf, which does so."
            )
        total = float(array.sum(dtype=np.float64))
        if total <= 0:
            raise InputError("The PSF is zero everywhere; give the image of a point source.")
        if abs(total - 1) > 1e-6:  # what was rounded to float32 once stays as it is
            array = array / total
        object.__setattr__(self, "array", np.ascontiguousarray(array, np.float32))
        if self.voxel_um is not None:
            object.__setattr__(self, "voxel_um", checked_voxel_um(self.voxel_um, array.ndim, "The PSF's voxel_um"))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def sha256(self) -> str:
        """Identity for provenance: of shape, voxel size and values."""
        digest = hashlib.sha256(repr((self.shape, self.voxel_um)).encode())
        digest.update(self.array.tobytes())
        return digest.hexdigest()

    def resample(self, voxel_um: tuple[float, ...]) -> PSF:
        """The same PSF on voxels of another size, by evaluating its Fourier series at the new positions.

        Exact for a band-limited PSF; where the new voxels are coarser, frequencies beyond their Nyquist limit are left
        out first.  The extent stays the same or becomes smaller by less than two voxels; negative ripples are clipped.
        It is the same function at other points: the pixels of a camera integrate, and that larger ones do so more is
        not included, so record the bead with the image's, or take `gpudecon.distill_psf`, which includes it.

        Raises `InputError` where only one sample of several would be left along an axis.
        """
        if self.voxel_um is None:
            raise InputError("The PSF has no voxel size, so it cannot be resampled; set voxel_um.")
        new = checked_voxel_um(voxel_um, self.array.ndim)
        array = self.array.astype(np.float64)
        for axis, (v_old, v_new) in enumerate(zip(self.voxel_um, new, strict=True)):
            if np.isclose(v_old, v_new, rtol=1e-6):
                continue
            n = array.shape[axis]
            if n > 1 and _half_length(n, v_old, v_new) == 0:
                raise InputError(
                    f"The PSF has {n} samples of {v_old:g} um along {'zyx'[axis - array.ndim]}, of which voxels of "
                    f"{v_new:g} um would leave one; give a larger PSF, or one on the image's voxels."
                )
            matrix = _fourier_interpolation(n, v_old, v_new)
            array = np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
        return PSF(np.maximum(array, 0).astype(np.float32), new, self.origin)

    def radially_averaged(self) -> PSF:
        """The mean over the angle around the axis: less noise, right for a round PSF only."""
        if self.voxel_um is None:
            raise InputError("The PSF has no voxel size, so its pixels may not be square; set voxel_um.")
        array = radial_mean(self.array, (self.voxel_um[-2], self.voxel_um[-1]))
        return PSF(np.maximum(array, 0), self.voxel_um, {**self.origin, "radial_average": True})


def _half_length(n: int, v_old: float, v_new: float) -> int:
    """New samples on either side of the centre within the extent of the old ones."""
    return int((n - n // 2 - 1) * v_old / v_new + 1e-9)


def _fourier_interpolation(n: int, v_old: float, v_new: float) -> NDArray[np.float64]:
    """(m, n) matrix from samples at (j - n // 2) v_old to samples at (i - m // 2) v_new, m odd, same extent."""
    half = _half_length(n, v_old, v_new)
    position = np.arange(-half, half + 1) * v_new / v_old
    # cycles per old sample that both grids carry; the Nyquist term of an even length is left out for symmetry
    k = np.fft.fftfreq(n)
    k = k[np.abs(k) < min(0.5, 0.5 * v_old / v_new) - 1e-12]

    to = np.exp(2j * np.pi * position[:, None] * k)
    back = np.exp(-2j * np.pi * (np.arange(n) - n // 2) * k[:, None])
    matrix: NDArray[np.float64] = (to @ back).real / n
    return matrix


def as_psf(psf: Any, ndim: int, voxel_um: tuple[float, ...] | None) -> PSF:
    """``psf`` as a PSF on the image's grid: a bare array is taken to be on it, a PSF of another pitch is resampled."""
    if isinstance(psf, PSF):
        return _on_grid(psf, ndim, voxel_um)
    array = np.asarray(psf.get() if hasattr(psf, "get") else psf)
    made = PSF(array)
    total = float(array.sum(dtype=np.float64))
    if abs(total - 1) > SUM_TOLERANCE:
        _warn(f"The PSF summed to {total:.6g}; it was divided by this so that intensities are kept.")
    return _on_grid(made, ndim, voxel_um)


def _on_grid(psf: PSF, ndim: int, voxel_um: tuple[float, ...] | None) -> PSF:
    if psf.array.ndim != ndim:
        raise InputError(
            f"The PSF has {psf.array.ndim} dimensions, shape {psf.shape}, but the image has {ndim}; both must be "
            "(z, y, x) or both (y, x)."
        )
    if voxel_um is not None and psf.voxel_um is not None and not np.allclose(psf.voxel_um, voxel_um, rtol=1e-3):
        _warn(f"The PSF's voxels of {psf.voxel_um} um were resampled to the image's {voxel_um} um.")
        psf = psf.resample(voxel_um)
    return psf


def _warn(message: str) -> None:
    warnings.warn(message, GpudeconWarning, stacklevel=5)
