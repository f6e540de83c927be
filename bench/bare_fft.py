"""Bare FFTs on the CPU: the four transforms of one Richardson-Lucy iteration as each library does them best."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Shape

Pair = Callable[[], object]


def four_ffts(library: str, shape: Shape, threads: int) -> Callable[[], None]:
    """Twice forth and back, float32, whole 3-D transforms; buffers and plans are made here, not in the call."""
    pair = PAIRS[library](shape, threads)

    def call() -> None:
        pair()
        pair()

    return call


def installed() -> list[str]:
    return [library for library in PAIRS if importlib.util.find_spec(library.split()[0])]


def _buffers(shape: Shape, empty: Any = np.empty) -> tuple[Any, Any, Any]:
    """Random real input, spectrum, real output.  Inverse transforms destroy the spectrum, never the input."""
    nz, ny, nx = shape
    real = empty(shape, dtype=np.float32)
    real[...] = np.random.default_rng().random(shape, np.float32)
    return real, empty((nz, ny, nx // 2 + 1), dtype=np.complex64), empty(shape, dtype=np.float32)


def _ducc0(shape: Shape, threads: int) -> Pair:
    import ducc0

    real, spectrum, back = _buffers(shape)
    inverse = {"lastsize": shape[2], "forward": False, "nthreads": threads, "allow_overwriting_input": True}

    def pair() -> None:
        ducc0.fft.r2c(real, nthreads=threads, out=spectrum)
        ducc0.fft.c2r(spectrum, out=back, **inverse)

    return pair


def _scipy(shape: Shape, threads: int) -> Pair:
    import scipy.fft

    real = _buffers(shape)[0]

    def pair() -> None:
        spectrum = scipy.fft.rfftn(real, workers=threads)
        scipy.fft.irfftn(spectrum, s=shape, workers=threads, overwrite_x=True, norm="forward")

    return pair


def _fftw(effort: str) -> Callable[[Shape, int], Pair]:
    def make(shape: Shape, threads: int) -> Pair:
        import pyfftw

        real, spectrum, back = _buffers(shape, pyfftw.empty_aligned)
        data = real.copy()  # planning by measuring destroys its arrays
        options = {"axes": (0, 1, 2), "threads": threads}
        forward = pyfftw.FFTW(real, spectrum, flags=(effort,), **options)
        flags = (effort, "FFTW_DESTROY_INPUT")
        inverse = pyfftw.FFTW(spectrum, back, direction="FFTW_BACKWARD", flags=flags, **options)
        real[...] = data

        def pair() -> None:
            forward.execute()
            inverse.execute()

        return pair

    return make


PAIRS: dict[str, Callable[[Shape, int], Pair]] = {
    "ducc0": _ducc0,
    "scipy": _scipy,
    "pyfftw estimate": _fftw("FFTW_ESTIMATE"),
    "pyfftw measure": _fftw("FFTW_MEASURE"),
}
