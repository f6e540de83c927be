"""Peak memory of one `deconvolve` call on the CPU, in a process of its own; prints bytes.

    python bench/peak_memory.py '{"shape": [64, 256, 256], "psf_shape": [61, 51, 51], "edges": "extend", "fft": "scipy",
                                  "acceleration": "none"}'

Baseline: resident size after the imports and a tiny restoration, before the image is made.  Peak: the highest resident
size (VmHWM) once the result is there, so image, PSF and result count.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
from cases import random_image, random_psf


def resident(field: str) -> int:
    """VmRSS or VmHWM; not getrusage, whose maximum a child inherits from the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def main() -> None:
    case = json.loads(sys.argv[1])
    if case["fft"] == "scipy":
        sys.modules["ducc0"] = None  # as if it were not installed
    import gpudecon

    rng = np.random.default_rng()
    options = {"edges": case["edges"], "device": "cpu", "acceleration": case["acceleration"], "iterations": 3}
    gpudecon.deconvolve(random_image((8, 9, 10), rng), random_psf((3, 3, 3), rng), **options)

    before = resident("VmRSS")
    image, psf = random_image(tuple(case["shape"]), rng), random_psf(tuple(case["psf_shape"]), rng)
    restored = gpudecon.deconvolve(image, psf, **options)
    assert restored.shape == image.shape
    print(json.dumps({"bytes": resident("VmHWM") - before}))


if __name__ == "__main__":
    main()
