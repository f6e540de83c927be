"""Transfers between host and device that go on while something else is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gpudecon.backend.ops import Array


class Transfer(Protocol):
    """An array on its way."""

    def wait(self) -> Array:
        """The array, which may be used from now on by whoever called, in the order of its work on the device."""
        ...


@dataclass(frozen=True)
class Arrived:
    """An array that is where it is needed."""

    array: Array

    def wait(self) -> Array:
        return self.array


class CupyTransfers:
    """Copies from and to pinned memory of the host, on two streams beside the one that computes.

    A device array is given back to the pool when its last reference goes, and may then be overwritten from its own
    stream: whoever works on what `send` brought must have waited for that work before letting go of the `Transfer`.
    """

    def __init__(self, device: Any, pool: Any) -> None:
        import cupy

        self._device, self._pool = device, pool
        with device:
            self._up, self._down = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))

    def send(self, array: Any) -> Transfer:
        """To the device."""
        import cupy
        import cupyx

        with self._device, cupy.cuda.using_allocator(self._pool.malloc), self._up:
            try:
                there = cupy.empty(array.shape, array.dtype)
            except cupy.cuda.memory.OutOfMemoryError:
                return Arrived(array)  # who computes with it brings it himself, and knows what to do without room
            pinned = cupyx.empty_pinned(array.shape, array.dtype)
            pinned[...] = array
            there.set(pinned, self._up)
            return _Sent(self._device, there, pinned, self._up.record())

    def fetch(self, array: Array) -> Transfer:
        """To the host, once all is done that was asked of the current stream so far."""
        import cupy
        import cupyx

        with self._device:
            self._down.wait_event(cupy.cuda.get_current_stream().record())
            pinned = cupyx.empty_pinned(array.shape, array.dtype)
            array.get(stream=self._down, out=pinned, blocking=False)
            return _Fetched(array, pinned, self._down.record())


@dataclass(frozen=True)
class _Sent:
    device: Any
    there: Array
    pinned: Any  # is read until the event
    event: Any

    def wait(self) -> Array:
        import cupy

        with self.device:  # each has a current stream of its own
            cupy.cuda.get_current_stream().wait_event(self.event)
        return self.there


@dataclass
class _Fetched:
    array: Array  # is read until the event
    pinned: Any
    event: Any

    def wait(self) -> Any:
        self.event.synchronize()
        self.array = None
        return self.pinned
