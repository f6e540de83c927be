"""Where the kernels run: on the host through g++ and a shim, and on a GPU where there is one."""

from __future__ import annotations

import math
import os
import shutil
from typing import Any

import numpy as np
import pytest

from gpudecon.backend.cuda import CudaOps, RawModuleLauncher

from .host_launcher import HostLauncher

# A signalling NaN: unlike other NaNs it does not survive arithmetic in place, so that this shows, too.
FILLING = 0xFFBFFFFF


class Guarded:
    """An array on a device inside a larger buffer of signalling NaN.

    Its rows lie ``pad`` elements apart from each other, and there is a row before the first and one after the last:
    what a kernel reads there spoils its result, what it writes there shows in `read`.
    """

    def __init__(self, device: Device, values: np.ndarray, pad: int) -> None:
        self._device, self._shape = device, values.shape
        *outer, length = values.shape
        size = (math.prod(outer) + 2) * (length + pad) * values.itemsize
        self._initial = np.full(size // 4 + 1, FILLING, np.uint32).view(np.uint8)[:size].view(values.dtype)
        self._view(self._initial)[...] = values
        self._buffer = device.xp.array(self._initial)
        self.array = self._view(self._buffer)

    def _view(self, buffer: Any) -> Any:
        *outer, length = self._shape
        pitch = buffer.size // (math.prod(outer) + 2)
        return buffer[pitch:-pitch].reshape(*outer, pitch)[..., :length]

    def read(self) -> np.ndarray:
        """The values; fails where the buffer around them was written."""
        buffer = self._device.to_host(self._buffer)
        outside = np.ones(buffer.size, bool)
        self._view(outside)[...] = False
        is_changed = (buffer.view(np.uint8) != self._initial.view(np.uint8)).reshape(buffer.size, -1).any(axis=1)
        assert not is_changed[outside].any(), "a kernel wrote outside its array"
        return self._view(buffer).copy()


class Device:
    """CudaOps on the arrays of an array module."""

    def __init__(self, xp: Any, ops: CudaOps) -> None:
        self.xp, self.ops = xp, ops

    def guarded(self, values: np.ndarray, pad: int = 0) -> Guarded:
        return Guarded(self, values, pad)

    def to_host(self, array: Any) -> np.ndarray:
        return array if self.xp is np else self.xp.asnumpy(array)


@pytest.fixture(scope="session")
def host_device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the kernels cannot be run on the host")
    flags = os.environ.get("GPUDECON_TEST_CXXFLAGS", "").split()
    return Device(np, CudaOps(HostLauncher(tmp_path_factory.mktemp("kernels"), flags)))


@pytest.fixture(scope="session")
def cuda_device() -> Device:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return Device(cupy, CudaOps(RawModuleLauncher()))


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    return request.getfixturevalue(f"{request.param}_device")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240517)
