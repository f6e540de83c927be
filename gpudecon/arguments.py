"""Arguments: what a `Deconvolver` is given, checked."""

from __future__ import annotations

import warnings
from typing import Any

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.methods import Method
from gpudecon.psf.psf import PSF, as_psf
from gpudecon.quality.stopping import HoldOut, RelativeChange


def check_stop(stop: object, method: Method) -> None:
    """Refuse what is no stop rule ("fixed" for none), and a rule for a method that does not iterate."""
    if isinstance(stop, str) and stop == "fixed":
        return
    if not isinstance(stop, RelativeChange | HoldOut) and not (isinstance(stop, str) and stop == "auto"):
        raise InputError(f"stop is {stop!r}; give 'fixed', 'auto', a gpudecon.RelativeChange or a gpudecon.HoldOut.")
    if not hasattr(method, "iterations"):
        raise InputError(f"{method.name} does not iterate; a stop rule is for iterative methods.")


def checked_psf(psf: PSF | Array | None, method: Method, ndim: int, voxel_um: tuple[float, ...] | None) -> PSF | None:
    """The PSF on the image's grid, or None for a method that needs none."""
    if not method.needs_psf:
        if psf is not None:
            warnings.warn(f"{method.name} needs no PSF; the one given is not used.", GpudeconWarning, stacklevel=4)
        return None
    if psf is None:
        raise InputError(f"{method.name} needs a PSF; give one, or a method that needs none.")
    return as_psf(psf, ndim, voxel_um)


def checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a volume (z, y, x) or a plane (y, x); others are refused."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(
            f"The image has shape {tuple(shape)}; it must be (z, y, x) or (y, x): loop over channels and time points."
        )
    return tuple(int(n) for n in shape)


def three_dimensional(sizes: tuple[Any, ...], leading: Any) -> tuple[Any, Any, Any]:
    """(y, x) -> (leading, y, x)."""
    return (leading, *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])
