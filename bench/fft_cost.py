"""Measure gpudecon/backend/fft_cost.json: ns per element of 1-D complex64 transforms of smooth lengths.

python bench/fft_cost.py scipy ducc0      # rewrites these libraries' tables; the others stay
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from gpudecon.backend.numpy import DuccTransforms, ScipyTransforms

TABLE = Path(__file__).parents[1] / "gpudecon" / "backend" / "fft_cost.json"
LONGEST = 2400
ELEMENTS = 1 << 18  # 2 MiB: in the cache, as in use


def smooth_lengths(primes: tuple[int, ...] = (2, 3, 5, 7, 11)) -> list[int]:
    lengths = {1}
    for prime in primes:
        for n in sorted(lengths):
            while (n := n * prime) <= LONGEST:
                lengths.add(n)
    return sorted(lengths - {1})


def measure(transforms: ScipyTransforms | DuccTransforms) -> dict[int, float]:
    """Best of several transforms along the first axis of an array of about ELEMENTS numbers."""
    table = {}
    for n in smooth_lengths():
        rows = np.ones((n, ELEMENTS // n), np.complex64)
        best = np.inf
        for _ in range(25):
            start = time.perf_counter()
            transforms.along_z(rows, forward=True)
            best = min(best, time.perf_counter() - start)
            rows[...] = 1
        table[n] = round(best / rows.size * 1e9, 3)
    return table


def main() -> None:
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    known = {"scipy": ScipyTransforms, "ducc0": DuccTransforms}
    for name in sys.argv[1:] or known:
        costs = measure(known[name]())
        # a length is worth using only if no longer one takes less time altogether
        table[name] = {n: c for n, c in costs.items() if all(n * c <= m * d for m, d in costs.items() if m > n)}
    TABLE.write_text(json.dumps(table).replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
