"""Devices of the GPU benchmark: a CUDA card, and the CPU in its place so that every line runs without one."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from timing import Clock, WallClock

from gpudecon.backend import Backend
from gpudecon.backend.numpy import DuccTransforms, NumpyBackend, ScipyTransforms

Call = Callable[[], object]


class Peak:
    """Filled in when the block that measures it ends."""

    bytes = 0


class Device(Clock, Protocol):
    """A backend with a clock, and what the benchmark needs besides."""

    name: str  # of a file, too
    fft_library: str  # as fft_cost.json calls it

    def backend(self) -> Backend:
        """A new one, with nothing in its memory."""
        ...

    def peak_memory(self) -> Any:
        """Context manager that yields a `Peak` of what its block takes."""
        ...

    def transfers(self, size: int) -> dict[str, Call]:
        """Copies of ``size`` bytes between host and device."""
        ...

    def axis_transforms(self, length: int, batch: int) -> list[Call]:
        """1-D complex64 transforms of ``batch`` vectors, one call for each way to lay them out."""
        ...

    def release(self) -> None:
        """Give back what is kept for later outside a backend: plans of `xp.fft` and their memory."""
        ...


class CpuDevice(WallClock):
    """Stands in for a GPU."""

    def __init__(self) -> None:
        self.name = "cpu-stand-in"
        self.fft_library = self.backend().fft_library

    def backend(self) -> NumpyBackend:
        return NumpyBackend()

    @contextmanager
    def peak_memory(self) -> Iterator[Peak]:
        peak = Peak()
        tracemalloc.start()
        try:
            yield peak
            peak.bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def transfers(self, size: int) -> dict[str, Call]:
        return {}

    def axis_transforms(self, length: int, batch: int) -> list[Call]:
        transforms = {"ducc0": DuccTransforms, "scipy": ScipyTransforms}[self.fft_library]()
        rows = _random_waves((length, batch))
        return [lambda: transforms.along_z(rows, forward=True)]

    def release(self) -> None: ...


class CudaDevice:
    """The first GPU; moments are events in CuPy's current stream."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.fft_library = "cufft"
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        self.name = "-".join(name.lower().split())

    def backend(self) -> Backend:
        from gpudecon.backend.cupy import CupyBackend

        return CupyBackend()

    def stamp(self) -> Any:
        event = self._cupy.cuda.Event()
        event.record()
        return event

    def wait(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()

    def seconds(self, before: Any, after: Any) -> float:
        return float(self._cupy.cuda.get_elapsed_time(before, after)) / 1e3

    @contextmanager
    def peak_memory(self) -> Iterator[Peak]:
        """A backend's pool gives nothing back while it lives, so what the card has lost at the end is the peak."""
        gc.collect()
        peak, before = Peak(), self._free()
        yield peak
        self.wait()
        peak.bytes = before - self._free()

    def transfers(self, size: int) -> dict[str, Call]:
        import cupyx

        on_device = self._cupy.empty(size // 4, np.float32)
        pinned = cupyx.empty_pinned(size // 4, np.float32)
        pageable = np.ones(size // 4, np.float32)
        pinned[...] = pageable
        return {
            "host to device, pinned": lambda: on_device.set(pinned),
            "device to host, pinned": lambda: on_device.get(out=pinned),
            "host to device, pageable": lambda: on_device.set(pageable),
            "device to host, pageable": lambda: on_device.get(out=pageable),
        }

    def axis_transforms(self, length: int, batch: int) -> list[Call]:
        cufft = self._cupy.cuda.cufft
        source = self._cupy.asarray(_random_waves((length, batch)))
        result = self._cupy.empty_like(source)

        def transform(stride: int, distance: int) -> Call:
            layout = [length], stride, distance
            plan = cufft.PlanNd([length], *layout, *layout, cufft.CUFFT_C2C, batch, "C", 0, None)
            return lambda: plan.fft(source, result, cufft.CUFFT_FORWARD)

        return [transform(batch, 1), transform(1, length)]  # as the axes z and y, and as the axis x

    def release(self) -> None:
        self._cupy.fft.config.clear_plan_cache()
        gc.collect()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def _free(self) -> int:
        return int(self._cupy.cuda.runtime.memGetInfo()[0])


def _random_waves(shape: tuple[int, int]) -> np.ndarray:
    """One vector repeated: a large array is wanted, not much randomness."""
    vector = np.random.default_rng().random(2 * shape[0], np.float32).view(np.complex64)
    return np.ascontiguousarray(np.broadcast_to(vector[:, None], shape))
