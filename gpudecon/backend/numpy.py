"""NumpyBackend: the CPU.  Transforms run plane by plane and slab by slab inside the cache, on all allowed cores."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend.fft_length import fastest_shape, shape_cost
from gpudecon.backend.host_memory import host_memory
from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import Slabs, available_cores, largest_slab
from gpudecon.backend.transfer import Arrived, Transfer
from gpudecon.errors import InputError

Real = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


class NumpyBackend:
    """The CPU with ``threads`` threads; ``fft`` is "scipy", "ducc0" or "auto" (ducc0 where it is installed)."""

    name = "cpu"
    xp = np
    largest_transform = None

    def __init__(self, threads: int | None = None, fft: str = "auto") -> None:
        self.slabs = Slabs(threads or available_cores())
        self.ops = NumpyOps(self.slabs)
        if fft == "auto":
            fft = "ducc0" if importlib.util.find_spec("ducc0") else "scipy"
        if fft not in _LIBRARIES:
            raise InputError(f"Unknown FFT library {fft!r}; use 'auto' or one of {', '.join(_LIBRARIES)}.")
        self.fft_library = fft

    @property
    def special(self) -> Any:
        import scipy.special

        return scipy.special

    @property
    def ndimage(self) -> Any:
        import scipy.ndimage

        return scipy.ndimage

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def plan(self, shape: tuple[int, int, int]) -> NumpyFFT:
        return NumpyFFT(shape, _LIBRARIES[self.fft_library](), self.slabs)

    def padded_shape(self, least: tuple[int, ...]) -> tuple[int, ...]:
        return fastest_shape(least, self.fft_library)

    def transform_cost(self, shape: tuple[int, ...]) -> float:
        return shape_cost(shape, self.fft_library)

    def upload(self, array: Any) -> NDArray[Any]:
        return np.ascontiguousarray(array)

    def download(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)

    def send(self, array: Any) -> Transfer:
        return Arrived(array)

    def fetch(self, array: Any) -> Transfer:
        return Arrived(array)

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def memory(self) -> tuple[int, int]:
        return host_memory()

    def describe(self) -> dict[str, Any]:
        library = __import__(self.fft_library)
        return {
            "device": f"cpu ({platform.machine()}, {self.slabs.threads} threads)",
            "fft": f"{self.fft_library} {library.__version__}",
            "numpy": np.__version__,
        }


class NumpyFFT:
    """`RealFFT` on the CPU.

    The convolution transforms slabs of planes along (y, x), then, for slabs of rows, goes forth along z, multiplies
    by the OTF and comes back while the slab is in the cache: fewer trips to memory than two whole transforms and a
    product, and no array besides the field itself.
    """

    def __init__(self, shape: tuple[int, int, int], library: PlaneTransforms, slabs: Slabs) -> None:
        self.shape = shape
        self._library = library
        self._slabs = slabs
        nz, ny, nx = shape
        self._plane_bytes = ny * (nx // 2 + 1) * 8
        self._row_bytes = nz * (nx // 2 + 1) * 8
        planes = min(nz, largest_slab(self._plane_bytes))
        self._scratch: SimpleQueue[Spectrum] = SimpleQueue()
        for _ in range(slabs.threads):
            self._scratch.put(np.empty((planes, ny, nx // 2 + 1), np.complex64))

    def empty(self) -> tuple[Spectrum, Real]:
        nz, ny, nx = self.shape
        spectrum = np.empty((nz, ny, nx // 2 + 1), np.complex64)
        rows = spectrum.view(np.float32)
        rows[..., nx:] = 0  # operations work on whole rows; what memory happens to hold there could overflow
        return spectrum, rows[..., :nx]

    def forward(self, source: Real, spectrum: Spectrum) -> None:
        self._forward_planes(source, spectrum, self.shape[0], forward=True)
        self._along_z(spectrum, lambda rows: self._library.along_z(rows, forward=True))

    def inverse(self, spectrum: Spectrum, real: Real) -> None:
        self._along_z(spectrum, lambda rows: self._library.along_z(rows, forward=False))
        self._inverse_planes(spectrum, real, self.shape[0], forward=False)

    def convolve(
        self,
        source: Real,
        spectrum: Spectrum,
        real: Real,
        otf: Spectrum,
        *,
        conjugate: bool,
        filled: int,
        needed: int,
    ) -> None:
        # For real fields, transforms with the other sign of the exponent are conjugated; all four of them with that
        # sign around the same product give the correlation, so nothing has to be conjugated.
        sign = not conjugate

        def filter_rows(cut: slice) -> None:
            rows = spectrum[:, cut]
            self._library.along_z(rows, forward=sign)
            rows *= otf[:, cut]
            self._library.along_z(rows, forward=not sign)

        self._forward_planes(source, spectrum, filled, forward=sign)
        self._slabs.run(self.shape[1], self._row_bytes, filter_rows)
        self._inverse_planes(spectrum, real, needed, forward=not sign)

    def _forward_planes(self, source: Real, spectrum: Spectrum, filled: int, *, forward: bool) -> None:
        in_place = np.may_share_memory(source, spectrum)

        def planes(cut: slice) -> None:
            if cut.start >= filled:
                spectrum[cut] = 0
                return
            if not in_place:
                self._library.real_to_complex(source[cut], spectrum[cut], forward=forward)
                return
            with self._borrowed(cut) as scratch:  # libraries do not promise to work in place here
                self._library.real_to_complex(source[cut], scratch, forward=forward)
                spectrum[cut] = scratch

        self._slabs.run(self.shape[0], self._plane_bytes, planes)

    def _inverse_planes(self, spectrum: Spectrum, real: Real, needed: int, *, forward: bool) -> None:
        def planes(cut: slice) -> None:
            with self._borrowed(cut) as scratch:
                scratch[...] = spectrum[cut]
                self._library.complex_to_real(scratch, real[cut], forward=forward)

        self._slabs.run(needed, self._plane_bytes, planes)

    def _along_z(self, spectrum: Spectrum, transform: Any) -> None:
        self._slabs.run(self.shape[1], self._row_bytes, lambda cut: transform(spectrum[:, cut]))

    @contextmanager
    def _borrowed(self, cut: slice) -> Iterator[Spectrum]:
        scratch = self._scratch.get()
        try:
            yield scratch[: cut.stop - cut.start]
        finally:
            self._scratch.put(scratch)


class PlaneTransforms(Protocol):
    """What an FFT library does here, without normalisation; each call runs on one thread.

    ``forward`` is the sign of the exponent, minus if True, in all of them.
    """

    def real_to_complex(self, planes: Real, out: Spectrum, *, forward: bool) -> None:
        """Along y and x."""
        ...

    def complex_to_real(self, planes: Spectrum, out: Real, *, forward: bool) -> None:
        """Along y and x; may overwrite ``planes``."""
        ...

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        """In place along the first axis."""
        ...


class ScipyTransforms:
    """SciPy's pocketfft: always there; it allocates its results."""

    def __init__(self) -> None:
        import scipy.fft

        self._fft = scipy.fft

    def real_to_complex(self, planes: Real, out: Spectrum, *, forward: bool) -> None:
        out[...] = self._fft.rfft2(planes) if forward else self._fft.ihfft2(planes, norm="forward")

    def complex_to_real(self, planes: Spectrum, out: Real, *, forward: bool) -> None:
        transform, norm = (self._fft.hfft2, "backward") if forward else (self._fft.irfft2, "forward")
        out[...] = transform(planes, s=out.shape[1:], norm=norm, overwrite_x=True)

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        if len(rows) > 1:
            rows[...] = self._fft.fft(rows, axis=0) if forward else self._fft.ifft(rows, axis=0, norm="forward")


class DuccTransforms:
    """ducc0 (extra `cpu`): pocketfft's successor, faster because it writes into given arrays."""

    def __init__(self) -> None:
        import ducc0

        self._fft = ducc0.fft

    def real_to_complex(self, planes: Real, out: Spectrum, *, forward: bool) -> None:
        self._fft.r2c(planes, axes=(1, 2), forward=forward, out=out)

    def complex_to_real(self, planes: Spectrum, out: Real, *, forward: bool) -> None:
        last = out.shape[2]
        self._fft.c2r(planes, axes=(1, 2), lastsize=last, forward=forward, out=out, allow_overwriting_input=True)

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        if len(rows) > 1:
            self._fft.c2c(rows, axes=(0,), forward=forward, out=rows)


_LIBRARIES: dict[str, type[ScipyTransforms] | type[DuccTransforms]] = {
    "scipy": ScipyTransforms,
    "ducc0": DuccTransforms,
}
