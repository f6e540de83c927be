"""The errors and the warning that gpudecon raises on purpose.

Each message is one sentence that says what was given, what is allowed and what to do.  The command line prints that
sentence without a traceback and ends with ``exit_status``: 2 where the request could not be carried out as it was
given, 1 where a run that was in order failed, 75 where it was asked to stop and can go on.
"""

from __future__ import annotations


class GpudeconError(Exception):
    """Base of every error that gpudecon raises on purpose."""

    exit_status = 1


class InputError(GpudeconError, ValueError):
    """The input, an option or a combination of them cannot be used as given."""

    exit_status = 2


class DeviceError(GpudeconError, RuntimeError):
    """The device that was asked for cannot be used here: no driver, no wheel, no such number."""

    exit_status = 2


class DeviceMemoryError(GpudeconError, MemoryError):
    """The device has less memory than the work needs."""


class RunError(GpudeconError, RuntimeError):
    """A run that started in order did not reach a usable result."""


class StoppedError(GpudeconError):
    """A run that was asked to stop has come to a point from where it can be resumed; the status is EX_TEMPFAIL."""

    exit_status = 75


class GpudeconWarning(UserWarning):
    """Something was repaired or assumed; the message says what, and how to avoid it."""
