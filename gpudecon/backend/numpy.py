"""NumpyBackend: the CPU.  Transforms run plane by plane and slab by slab inside the cache, on all allowed cores."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend.fft_length import fastest_shape
from gpudecon.backend.ops import NumpyOps
from gpudecon.backend.slabs import SLAB_BYTES, Slabs, available_cores
from gpudecon.errors import InputError

Real = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


class NumpyBackend:
    """The CPU with ``threads`` threads; ``fft`` is "scipy", "ducc0" or "auto" (ducc0 where it is installed)."""

    name = "cpu"
    xp = np

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

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def plan(self, shape: tuple[int, int, int]) -> NumpyFFT:
        return NumpyFFT(shape, _LIBRARIES[self.fft_library](), self.slabs)

    def padded_shape(self, least: tuple[int, ...]) -> tuple[int, ...]:
        return fastest_shape(least, self.fft_library)

    def upload(self, array: Any) -> NDArray[Any]:
        return np.ascontiguousarray(array)

    def download(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def memory(self) -> tuple[int, int]:
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page

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
        planes = min(nz, max(1, SLAB_BYTES // self._plane_bytes))
        self._scratch: SimpleQueue[Spectrum] = SimpleQueue()
        for _ in range(slabs.threads):
            self._scratch.put(np.empty((planes, ny, nx // 2 + 1), np.complex64))

    def empty(self) -> tuple[Spectrum, Real]:
        nz, ny, nx = self.shape
        spectrum = np.empty((nz, ny, nx // 2 + 1), np.complex64)
        return spectrum, spectrum.view(np.float32)[..., :nx]

    def forward(self, source: Real, spectrum: Spectrum) -> None:
        self._forward_planes(source, spectrum, filled=self.shape[0])
        self._along_z(spectrum, lambda rows: self._library.along_z(rows, forward=True))

    def inverse(self, spectrum: Spectrum, real: Real) -> None:
        self._along_z(spectrum, lambda rows: self._library.along_z(rows, forward=False))
        self._inverse_planes(spectrum, real, needed=self.shape[0])

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
        def filter_rows(cut: slice) -> None:
            rows, transfer = spectrum[:, cut], otf[:, cut]
            self._library.along_z(rows, forward=True)
            # conj(S) T conjugated is S conj(T): the same product as NumpyOps.multiply_otf, on a slab of rows
            if conjugate:
                np.conjugate(rows, out=rows)
            rows *= transfer
            if conjugate:
                np.conjugate(rows, out=rows)
            self._library.along_z(rows, forward=False)

        self._forward_planes(source, spectrum, filled)
        self._slabs.run(self.shape[1], self._row_bytes, filter_rows)
        self._inverse_planes(spectrum, real, needed)

    def _forward_planes(self, source: Real, spectrum: Spectrum, filled: int) -> None:
        def planes(cut: slice) -> None:
            if cut.start >= filled:
                spectrum[cut] = 0
                return
            with self._borrowed(cut) as scratch:  # libraries do not promise to work in place here
                self._library.forward_xy(source[cut], scratch)
                spectrum[cut] = scratch

        self._slabs.run(self.shape[0], self._plane_bytes, planes)

    def _inverse_planes(self, spectrum: Spectrum, real: Real, needed: int) -> None:
        def planes(cut: slice) -> None:
            with self._borrowed(cut) as scratch:
                scratch[...] = spectrum[cut]
                self._library.inverse_xy(scratch, real[cut])

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
    """What an FFT library does here; each call runs on one thread."""

    def forward_xy(self, planes: Real, out: Spectrum) -> None: ...
    def inverse_xy(self, planes: Spectrum, out: Real) -> None:
        """May overwrite ``planes``."""
        ...

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        """In place along the first axis; the inverse is not normalised."""
        ...


class ScipyTransforms:
    """SciPy's pocketfft: always there; it allocates its results."""

    def __init__(self) -> None:
        import scipy.fft

        self._fft = scipy.fft

    def forward_xy(self, planes: Real, out: Spectrum) -> None:
        out[...] = self._fft.rfft2(planes)

    def inverse_xy(self, planes: Spectrum, out: Real) -> None:
        out[...] = self._fft.irfft2(planes, s=out.shape[1:], norm="forward", overwrite_x=True)

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        if len(rows) > 1:
            rows[...] = self._fft.fft(rows, axis=0) if forward else self._fft.ifft(rows, axis=0, norm="forward")


class DuccTransforms:
    """ducc0 (extra `cpu`): pocketfft's successor, faster because it writes into given arrays."""

    def __init__(self) -> None:
        import ducc0

        self._fft = ducc0.fft

    def forward_xy(self, planes: Real, out: Spectrum) -> None:
        self._fft.r2c(planes, axes=(1, 2), out=out)

    def inverse_xy(self, planes: Spectrum, out: Real) -> None:
        self._fft.c2r(planes, axes=(1, 2), lastsize=out.shape[2], forward=False, out=out, allow_overwriting_input=True)

    def along_z(self, rows: Spectrum, *, forward: bool) -> None:
        if len(rows) > 1:
            self._fft.c2c(rows, axes=(0,), forward=forward, out=rows)


_LIBRARIES: dict[str, type[ScipyTransforms] | type[DuccTransforms]] = {
    "scipy": ScipyTransforms,
    "ducc0": DuccTransforms,
}
