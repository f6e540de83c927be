"""Slabs: elementwise and per-plane work cut into cache-sized pieces and shared among threads.

The cut depends on the array alone, never on the number of threads, so results have the same bits for any number.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

# Pieces of about this size stay in the second or third cache level while several passes go over them.  Measured
# with bench/cpu.py: 1-4 MiB are alike, smaller pieces pay for Python calls, larger ones for memory traffic.
SLAB_BYTES = 2 << 20

P = ParamSpec("P")
Owner = TypeVar("Owner", bound="HasSlabs")


def available_cores() -> int:
    """Cores that this process may use (a SLURM allocation or `taskset` counts, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# So many pieces, or a multiple of it, are dealt out evenly to 2, 4 or 8 threads.
EVEN = 8


class Slabs:
    """Runs a function over consecutive slices of ``range(length)`` on ``threads`` threads, the caller's among them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="gpudecon") if threads > 1 else None

    def run(self, length: int, bytes_per_index: int, work: Callable[[slice], None]) -> None:
        """Call ``work(slice)`` until the slices cover ``range(length)``; an error in any of them is raised here."""
        step = slab_length(length, bytes_per_index)
        starts = iter(range(0, length, step))
        lock = threading.Lock()

        def drain() -> None:
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                work(slice(start, min(start + step, length)))

        others = []
        if self._pool is not None and length > step:
            others = [self._pool.submit(drain) for _ in range(self.threads - 1)]
        try:
            drain()
        finally:
            wait(others)
        for other in others:
            other.result()


def slab_length(length: int, bytes_per_index: int) -> int:
    """Indices in each piece of ``range(length)``: at most `largest_slab`, and an even number of pieces."""
    pieces = -(-length * bytes_per_index // SLAB_BYTES)
    if pieces > 1:
        pieces = -(-pieces // EVEN) * EVEN
    return max(1, -(-length // max(1, pieces)))


def largest_slab(bytes_per_index: int) -> int:
    """Indices in about `SLAB_BYTES`, at least one."""
    return -(-SLAB_BYTES // max(1, bytes_per_index))


class HasSlabs:
    """Owner of methods decorated with `by_slabs`."""

    def __init__(self, slabs: Slabs) -> None:
        self.slabs = slabs


def by_slabs(twin: Callable[Concatenate[Owner, P], None]) -> Callable[Concatenate[Owner, P], None]:
    """Run an elementwise method slab by slab along z.

    The first array decides the number of planes.  Every array of two or more dimensions is cut along its first axis
    (one that is shorter, such as an image inside its padded domain, is simply used up earlier); vectors and scalars
    go to each slab whole.  Where all arrays are real views of fields of one shape, the unused numbers between their
    rows are worked on too: whole planes go three times as fast as rows of a hundred numbers.
    """

    @functools.wraps(twin)
    def method(self: Owner, *args: P.args, **kwargs: P.kwargs) -> None:
        if kwargs:
            raise TypeError(f"{twin.__name__} takes positional arguments only, like the kernel of that name.")
        stacked = [a for a in args if isinstance(a, np.ndarray) and a.ndim > 1]
        fields = [field for field in map(_whole_rows, stacked) if field is not None]
        same = len(fields) == len(stacked) and len({field.shape for field in fields}) == 1
        whole = fields if same else stacked

        def work(planes: slice) -> None:
            cuts = iter(whole)
            cut: list[Any] = [next(cuts)[planes] if isinstance(a, np.ndarray) and a.ndim > 1 else a for a in args]
            twin(self, *cut)  # type: ignore[call-arg]

        self.slabs.run(stacked[0].shape[0], max(a.nbytes // max(1, a.shape[0]) for a in stacked), work)

    return cast("Callable[Concatenate[Owner, P], None]", method)


def at_least(field: NDArray[np.float32], bound: float) -> NDArray[np.float32]:
    """``field``, raised to ``bound`` where it is below; NaN stays.  `np.maximum` with a number takes twice the time."""
    return np.clip(field, np.float32(bound), np.float32(np.inf), out=field)


def _whole_rows(real: NDArray[Any]) -> NDArray[np.float32] | None:
    """The field whose real view this is, with the unused numbers at the end of each row (see `RealFFT`); or None.

    The real view of a field of odd rows less its last column looks like one of even rows: nothing may make such a view.
    """
    spectrum = real.base
    if not isinstance(spectrum, np.ndarray) or spectrum.dtype != np.complex64 or not spectrum.flags.c_contiguous:
        return None
    rows = spectrum.view(np.float32)
    view = rows[..., : real.shape[-1]]
    is_view = real.ctypes.data == view.ctypes.data and real.strides == view.strides and real.shape == view.shape
    return rows if is_view and rows.shape[-1] - real.shape[-1] in (1, 2) else None
