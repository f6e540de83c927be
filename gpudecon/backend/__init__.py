"""Backends: the only place that knows devices.  `get_backend` chooses one, once, at the top of a computation."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any, Protocol

from gpudecon.backend.ops import Array as Array
from gpudecon.backend.ops import Ops as Ops
from gpudecon.backend.transfer import Transfer as Transfer
from gpudecon.errors import DeviceError, InputError


class RealFFT(Protocol):
    """Real 3-D transforms of one shape with everything they need made beforehand.

    A field lives in one block of memory that is seen in two ways: as ``spectrum``, complex64 (Z, Y, X // 2 + 1), and
    as ``real``, float32 (Z, Y, X) with the two to one unused numbers at the end of each row.  Transforms work inside
    that block; the inverse is not normalised (1 / N belongs into the OTF).
    """

    shape: tuple[int, int, int]

    def empty(self) -> tuple[Array, Array]:
        """A new field, uninitialised: (spectrum, real), two views of the same memory."""
        ...

    def forward(self, source: Array, spectrum: Array) -> None:
        """Spectrum <- FFT(source); ``source`` is the real view of the same field or of another one."""
        ...

    def inverse(self, spectrum: Array, real: Array) -> None:
        """Real <- N FFT^-1(spectrum), where ``real`` is the other view of the same memory."""
        ...

    def convolve(
        self, source: Array, spectrum: Array, real: Array, otf: Array, *, conjugate: bool, filled: int, needed: int
    ) -> None:
        """Real <- source (*) PSF, or its correlation if ``conjugate``; ``spectrum`` and ``real`` are one field.

        The caller states that planes of ``source`` from ``filled`` on are zero and that it will not read planes of
        ``real`` from ``needed`` on: a backend may skip their transforms.
        """
        ...


class Backend(Protocol):
    """A device with its array module, operations, transforms and transfers."""

    name: str

    @property
    def xp(self) -> Any:
        """The array module, NumPy or CuPy."""
        ...

    @property
    def special(self) -> Any:
        """The module of special functions for its arrays, that of SciPy or CuPy."""
        ...

    @property
    def ndimage(self) -> Any:
        """The module of image filters for its arrays, that of SciPy or CuPy."""
        ...

    @property
    def ops(self) -> Ops: ...

    @property
    def largest_transform(self) -> int | None:
        """The most numbers in a field that `plan` takes, the unused ones of its rows included; None: any."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Within it, arrays are made on this device; its memory errors are raised as `DeviceMemoryError`."""
        ...

    def plan(self, shape: tuple[int, int, int]) -> RealFFT: ...
    def padded_shape(self, least: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, at least ``least`` on every axis, that this backend's FFT transforms in the least time."""
        ...

    def transform_cost(self, shape: tuple[int, ...]) -> float:
        """What a transform of this shape costs, to compare shapes on this backend by."""
        ...

    def upload(self, array: Any) -> Array:
        """The array on this device, C-contiguous; no copy where it already is."""
        ...

    def download(self, array: Array) -> Any:
        """The array as a NumPy array."""
        ...

    def send(self, array: Any) -> Transfer:
        """Begin to bring a NumPy array to this device, beside what is computed there; from any thread.

        Where there is no room for it now, it arrives as it is: `upload` what has arrived.
        """
        ...

    def fetch(self, array: Array) -> Transfer:
        """Begin to bring a contiguous array of this device to the host; what made it may still be at work.

        An array that is no device's own has arrived.
        """
        ...

    def owns(self, array: Any) -> bool:
        """Whether the array already lives on this device."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device's memory."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a provenance record needs to know of the device and its libraries."""
        ...


def get_backend(device: str = "auto", *, threads: int | None = None, memory_limit: int | None = None) -> Backend:
    """The backend for ``device``: "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes the first GPU that works and the CPU otherwise.  ``threads`` is the number of CPU threads (default:
    the cores this process may use), ``memory_limit`` the most bytes to take on a GPU (default: no limit).
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InputError(f"Unknown device {device!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if threads is not None and (not isinstance(threads, Integral) or threads < 1):
        raise InputError(f"threads is {threads!r}; give a positive number of CPU threads.")
    if device != "cpu":
        from gpudecon.backend.cupy import CupyBackend, missing_for_cuda

        missing = missing_for_cuda()
        if missing is None:
            return CupyBackend(int(device.partition(":")[2] or 0), memory_limit=memory_limit)
        if device != "auto":
            raise DeviceError(f"{device} was asked for, but {missing}; or use the CPU with device 'cpu'.")
    from gpudecon.backend.numpy import NumpyBackend

    return NumpyBackend(threads=threads)


def visible_gpus(device: str = "auto") -> tuple[str, ...]:
    """The GPUs that ``device`` may mean, for CUDA_VISIBLE_DEVICES of other processes; empty where it means the CPU."""
    backend = get_backend(device)
    if backend.name == "cpu":
        return ()
    from gpudecon.backend.cupy import gpu_uuids

    _, _, index = device.partition(":")
    return (gpu_uuids()[int(index)],) if index else gpu_uuids()
