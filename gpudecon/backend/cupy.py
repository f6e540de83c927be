"""CupyBackend: one NVIDIA GPU through CuPy.  CuPy is not imported, and no driver touched, before it is asked for.

Memory comes from one pool per backend with a limit.  Real FFTs run in place in padded rows with two explicit plans that
share one work area: CuPy's own functions would copy the input of every inverse transform and keep an area per plan.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpudecon.backend.cuda import CudaOps, RawModuleLauncher
from gpudecon.backend.fft_length import fastest_shape, shape_cost
from gpudecon.backend.ops import Array
from gpudecon.backend.transfer import Arrived, CupyTransfers, Transfer
from gpudecon.errors import DeviceError, DeviceMemoryError, InputError

LARGEST_ELEMENTS = 2**31 - 1  # cuFFT's 32-bit plans


def missing_for_cuda() -> str | None:
    """What stands in the way of using a GPU, as the end of a sentence, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'gpudecon[cuda12]' or 'gpudecon[cuda13]' as your driver allows"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error})"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no NVIDIA driver answers that fits this CuPy ({error})"
    if count == 0:
        return "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES hides those that there are, if any)"
    return _missing_library()


def gpu_uuids() -> tuple[str, ...]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them in other processes whatever it hides in this one."""
    import cupy

    runtime = cupy.cuda.runtime
    return tuple(uuid_name(runtime.getDeviceProperties(i)["uuid"]) for i in range(runtime.getDeviceCount()))


def uuid_name(raw: bytes) -> str:
    """GPU-01234567-89ab-...; CuPy may cut ``raw`` off at its first zero byte, and the beginning of a name is enough."""
    digits = raw.hex() if len(raw) >= 16 else raw.hex() + "00"
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32])
    return "-".join(["GPU", *filter(None, parts)])


def _missing_library() -> str | None:
    """CuPy loads these when they are first used; better to know now."""
    try:
        from cupy.cuda import cufft, nvrtc

        cufft.getVersion()
        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        return f"the CUDA libraries cuFFT and NVRTC cannot be loaded ({error}): install gpudecon[cuda12] or [cuda13]"
    return None


class CupyBackend:
    """GPU number ``index`` with at most ``memory_limit`` bytes in its pool (default: what the card has)."""

    largest_transform = LARGEST_ELEMENTS

    def __init__(self, index: int = 0, *, memory_limit: int | None = None) -> None:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        if index >= count:
            raise DeviceError(f"cuda:{index} was asked for, but the last of {count} visible GPUs is cuda:{count - 1}.")
        self.name = f"cuda:{index}"
        self.xp = cupy
        self.ops = CudaOps(RawModuleLauncher())
        self._device = cupy.cuda.Device(index)
        self._pool = cupy.cuda.MemoryPool()
        self._transfers = CupyTransfers(self._device, self._pool)
        if memory_limit is not None:
            with self._device:
                self._pool.set_limit(size=memory_limit)

    @property
    def special(self) -> Any:
        import cupyx.scipy.special

        return cupyx.scipy.special

    @property
    def ndimage(self) -> Any:
        import cupyx.scipy.ndimage

        return cupyx.scipy.ndimage

    @contextmanager
    def active(self) -> Iterator[None]:
        """Work on this device and from this pool; too little memory is said in our words."""
        with self._device, self.xp.cuda.using_allocator(self._pool.malloc):
            try:
                yield
            except self.xp.cuda.memory.OutOfMemoryError as error:
                free, total = self.memory()
                raise DeviceMemoryError(
                    f"{self.name} has {free / 2**30:.2f} of {total / 2**30:.2f} GiB free, which does not suffice "
                    f"({error}); use a smaller image or PSF, or device 'cpu'."
                ) from error

    def plan(self, shape: tuple[int, int, int]) -> CupyFFT:
        return CupyFFT(shape, self.ops, self._pool)

    def padded_shape(self, least: tuple[int, ...]) -> tuple[int, ...]:
        return fastest_shape(least, "cufft")

    def transform_cost(self, shape: tuple[int, ...]) -> float:
        return shape_cost(shape, "cufft")

    def upload(self, array: Any) -> Array:
        return self.xp.ascontiguousarray(self.xp.asarray(array))

    def download(self, array: Array) -> Any:
        return self.xp.asnumpy(array)

    def send(self, array: Any) -> Transfer:
        return self._transfers.send(array)

    def fetch(self, array: Array) -> Transfer:
        return self._transfers.fetch(array) if self.owns(array) else Arrived(array)

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray) and array.device.id == self._device.id

    def memory(self) -> tuple[int, int]:
        with self._device:
            free, total = self.xp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def describe(self) -> dict[str, Any]:
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self._device.id)
        return {
            "device": f"{self.name} ({properties['name'].decode()})",
            "driver": _dotted(runtime.driverGetVersion()),
            "fft": f"cuFFT {self.xp.cuda.cufft.getVersion()}",
            "cupy": self.xp.__version__,
        }


class CupyFFT:
    """`RealFFT` by cuFFT: transforms in place, or from one field into another, in padded rows."""

    def __init__(self, shape: tuple[int, int, int], ops: CudaOps, pool: Any) -> None:
        import cupy
        from cupy.cuda import cufft

        nz, ny, nx = shape
        half = nx // 2 + 1
        if nz * ny * 2 * half > LARGEST_ELEMENTS:
            raise InputError(f"The padded shape {shape} has more than 2^31 elements, cuFFT's limit: use smaller tiles.")
        self.shape = shape
        self._ops = ops
        self._cupy = cupy
        lengths = [nz, ny, nx] if nz > 1 else [ny, nx]
        real = [*lengths[:-1], 2 * half]
        spectrum = [*lengths[:-1], half]
        last = len(lengths) - 1
        area: list[Any] = []

        def shared(size: int) -> Any:
            """Both plans run one after the other, so one area serves both."""
            if not area or area[0].mem.size < size:
                area[:] = [pool.malloc(size)]
            return area[0]

        with cupy.cuda.using_allocator(shared):
            # cuFFT 12 refuses a distance of 0 between transforms, also where there is but one
            of_real, of_spectrum = (real, 1, math.prod(real)), (spectrum, 1, math.prod(spectrum))
            self._forward = cufft.PlanNd(lengths, *of_real, *of_spectrum, cufft.CUFFT_R2C, 1, "C", last, half)
            self._inverse = cufft.PlanNd(lengths, *of_spectrum, *of_real, cufft.CUFFT_C2R, 1, "C", last, nx)

    def empty(self) -> tuple[Array, Array]:
        nz, ny, nx = self.shape
        spectrum = self._cupy.empty((nz, ny, nx // 2 + 1), np.complex64)
        return spectrum, spectrum.view(np.float32)[..., :nx]

    def forward(self, source: Array, spectrum: Array) -> None:
        check_field(source, self.shape)
        self._forward.fft(source, spectrum, self._cupy.cuda.cufft.CUFFT_FORWARD)

    def inverse(self, spectrum: Array, real: Array) -> None:
        self._inverse.fft(spectrum, real, self._cupy.cuda.cufft.CUFFT_INVERSE)

    def convolve(
        self, source: Array, spectrum: Array, real: Array, otf: Array, *, conjugate: bool, filled: int, needed: int
    ) -> None:
        # cuFFT's 3-D plans cannot leave out planes: the statements about ``filled`` and ``needed`` are not used
        self.forward(source, spectrum)
        self._ops.multiply_otf(spectrum, otf, conjugate)
        self.inverse(spectrum, real)


def check_field(real: Array, shape: tuple[int, int, int]) -> None:
    """Refuse what is no real view of a field: cuFFT gets a pointer and takes the rows to be padded."""
    _, ny, nx = shape
    row = 4 * 2 * (nx // 2 + 1)
    strides = (ny * row, row, 4)
    fits = real.dtype == np.float32 and real.shape == shape
    if not fits or any(n > 1 and a != b for n, a, b in zip(shape, real.strides, strides, strict=True)):
        raise TypeError(
            f"The transform takes the real view of a field, float32 {shape} with strides {strides}, "
            f"not {real.dtype} {real.shape} with strides {real.strides}."
        )


def _dotted(version: int) -> str:
    """12040 -> "12.4", CUDA's way to write versions."""
    return f"{version // 1000}.{version % 1000 // 10}"
