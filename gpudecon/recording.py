"""Recording: an image with what is known of how it was taken, checked and made into a `Problem`."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.camera import Camera
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.forward import ForwardModel
from gpudecon.methods import Method, Problem
from gpudecon.methods.record import Record
from gpudecon.quality.background import estimate_background

LARGEST = 1e30

Background = Any  # float | Literal["auto"] | Array, of which the last may be anything


@dataclass(frozen=True)
class Conditions:
    """How images were recorded: background (a number, "auto" or an image), camera, and the value of saturation."""

    background: Background = 0.0
    camera: Camera | None = None
    saturation: float | None = None

    def __post_init__(self) -> None:
        if self.camera is not None and not isinstance(self.camera, Camera):
            raise InputError(f"camera is {self.camera!r}; give a gpudecon.Camera(offset, gain, read_noise).")
        if self.saturation is not None and not _is_number(self.saturation):
            raise InputError(f"saturation is {self.saturation!r}; give the grey value from which voxels are saturated.")
        if isinstance(self.background, str) and self.background == "auto":
            return
        if not _is_number(self.background) and not (hasattr(self.background, "shape") and self.background.ndim):
            raise InputError(
                f"background is {self.background!r}; give a number in the image's units, an image of it, or 'auto'."
            )


def problem_of(
    image: Array,
    mask: Array | None,
    conditions: Conditions,
    method: Method,
    model: ForwardModel,
    voxel_um: tuple[float, float, float],
    record: Record | None = None,
) -> Problem:
    """The problem that ``method`` is to solve; ``image`` and ``mask`` (True: measured) have the image's own shape.

    ``record`` notes the background and the highest value.  If it says that the image is a part of a larger one, it
    tells those of the whole, and the image may be dark.
    """
    backend, record = model.backend, record or Record()
    if mask is not None and backend.owns(image):
        mask = backend.upload(mask)
    measured = _measured(image, mask, conditions.saturation, record.is_part)
    if measured is not None:
        check_takes_mask(method)
        image = np.where(measured, image, 0)  # CuPy's where for its arrays
    lowest, highest = checked_range(image)
    if lowest == highest == 0 and not record.is_part:
        raise InputError("The image is zero everywhere; there is nothing to restore.")
    highest = record.number("highest", lambda: highest)
    background, varying = _background(backend, image, measured, conditions, record)
    camera = conditions.camera or Camera()
    shift = camera.read_variance - camera.offset
    lowest, highest = lowest + shift, highest + shift
    background = max(background - camera.offset, 0.0) + camera.read_variance if conditions.camera else background
    if not record.is_part:
        if method.counts_only or hasattr(method, "iterations"):  # iterations divide by the highest value
            _check_light(highest, background, shift, counts_only=method.counts_only)
        if method.counts_only:
            _warn_of_negatives(image, lowest, shift)
    boxed = image.reshape(model.image_shape)
    if boxed.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        boxed = boxed.astype(np.float32)  # exact for integers up to 2^24
    data = backend.upload(boxed)
    if shift:
        data = data.astype(np.float32) + np.float32(shift)
    if method.counts_only and lowest < 0:
        data = backend.xp.maximum(data, 0)
    return Problem(
        backend,
        model,
        data,
        background,
        voxel_um,
        highest,
        None if varying is None else varying.reshape(model.image_shape),
        None if measured is None else backend.upload(measured.reshape(model.image_shape).astype(np.uint8)),
        camera.gain if conditions.camera else None,
        record,
    )


def check_takes_mask(method: Method) -> None:
    """Refuse a method that needs all voxels."""
    if not method.takes_mask:
        raise InputError(f"{method.name} cannot leave voxels out; a mask and saturation are for the iterative methods.")


def checked_image(image: Array) -> Array:
    """An array of real numbers; NumPy's unless it is on a GPU."""
    if isinstance(image, np.ma.MaskedArray):
        raise InputError(
            "The image is a masked array; give its data, and which voxels are measured as mask=~image.mask."
        )
    if not hasattr(image, "__cuda_array_interface__"):
        image = np.asarray(image)
    if not hasattr(image, "get") and not isinstance(image, np.ndarray):
        raise InputError(f"The image is a {type(image).__name__}; give a NumPy or a CuPy array.")
    if image.dtype.kind not in "uif":
        raise InputError(f"The image holds {image.dtype}; it must hold real numbers.")
    return image


def _measured(image: Array, mask: Array | None, saturation: float | None, is_part: bool) -> Array | None:
    """Which voxels are measured, in the image's array module; None: all."""
    measured = None
    if mask is not None:
        measured = mask if hasattr(mask, "__cuda_array_interface__") else np.asarray(mask)
        if measured.shape != image.shape or measured.dtype.kind not in "bu":
            raise InputError(
                f"The mask has shape {tuple(measured.shape)} and holds {measured.dtype}; it must be boolean, True "
                f"where the voxel is measured, and have the image's shape {tuple(image.shape)}."
            )
        measured = measured != 0
    if saturation is not None:
        unsaturated = ~(image >= saturation)  # NaN is not saturated, but refused
        measured = unsaturated if measured is None else measured & unsaturated
    if measured is not None:
        if not bool(measured.any()) and not is_part:
            raise InputError("The mask and the saturation leave no voxel of the image; nothing can be restored.")
        if bool(measured.all()):
            return None
    return measured


def _background(
    backend: Backend, image: Array, measured: Array | None, conditions: Conditions, record: Record
) -> tuple[float, Array | None]:
    """(constant part, image of the rest on the device, or None) of the background.

    The constant part of an image is its median, of which a few dead voxels change nothing.
    """
    background = conditions.background
    if isinstance(background, str):
        return record.number("background", lambda: estimate_background(image, measured)), None
    if _is_number(background):
        return record.number("background", lambda: background), None
    if tuple(background.shape) != tuple(image.shape):
        raise InputError(
            f"The background has shape {tuple(background.shape)}; it must be a number or have the image's shape "
            f"{tuple(image.shape)}."
        )
    varying = backend.upload(background.astype(np.float32))
    if not (math.isfinite(float(varying.min())) and math.isfinite(float(varying.max()))):
        raise InputError("The background holds NaN or infinite voxels.")
    if (
        conditions.camera is not None
    ):  # before the split; below it the model would come to 0, and noise be divided by it
        backend.xp.maximum(varying, np.float32(conditions.camera.offset), out=varying)
    seen = varying if measured is None else varying[backend.upload(measured)]
    level = record.number("background", lambda: float(backend.xp.median(seen)))
    varying -= np.float32(level)
    return level, varying


def _check_light(highest: float, background: float, shift: float, *, counts_only: bool) -> None:
    if highest <= (max(background, 0.0) if counts_only else 0.0):
        raise InputError(
            f"The image's largest value {highest - shift:g} is not above the background {background - shift:g} and 0: "
            "nothing is left to restore; give counts, and a background below them."
        )


def _warn_of_negatives(image: Array, lowest: float, shift: float) -> None:
    if lowest < 0 and not shift:  # a camera's read noise may go below its offset
        negative = int((image < 0).sum())
        warnings.warn(
            f"{negative} negative voxels (lowest {lowest:g}) were set to 0: counts cannot be negative. If an "
            "offset was subtracted from the image, add it again and give it as background.",
            GpudeconWarning,
            stacklevel=5,
        )


def checked_range(image: Array) -> tuple[float, float]:
    """Lowest and highest value; NaN, infinity and what float32 cannot sum are refused."""
    lowest, highest = float(image.min()), float(image.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        wrong = int(image.size - np.isfinite(image).sum())
        raise InputError(f"The image holds {wrong} NaN or infinite voxels; replace them, or leave them out by a mask.")
    if max(abs(lowest), abs(highest)) > LARGEST:
        raise InputError(
            f"The image's values reach {max(highest, -lowest):.3g}; float32 sums need them below {LARGEST:g}."
        )
    return lowest, highest


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
