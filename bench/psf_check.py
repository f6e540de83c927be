"""Whether --check-psf finds a PSF that is 1.5 times too wide, and leaves the true one alone.

python bench/psf_check.py -o bench/results/psf_check.jsonl     # about 3 minutes
python bench/psf_check.py --quick -o /tmp/psf_check.jsonl

Section ``check``: ``deviations``, by how many standard deviations a PSF narrower by 1.5 predicts held-out counts better
than the given one, which is stretched by ``width``.  More than 5 are warned of.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

from quality_cases import OPTICS, VOXEL, simulated
from rows import Rows, environment

import gpudecon as gd
from gpudecon.quality import psf_width

FRAME, WINDOW = (24, 80, 80), (25, 33, 33)
PHANTOMS = ("nuclei", "shells", "filaments")
PHOTONS = (20, 200, 2000)
WIDTHS = (1.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one toy case: the numbers mean nothing")
    arguments = parser.parse_args()
    frame, window, optics, phantoms = FRAME, WINDOW, tuple(OPTICS), PHANTOMS
    if arguments.quick:
        frame, window, optics, phantoms = (8, 20, 24), (5, 7, 7), ("confocal",), ("nuclei",)
    rows = Rows(arguments.output)
    rows.add("env", "environment", **environment())
    psf_width.DEVIATIONS = -math.inf  # report whatever is found
    for optic, phantom, photons in itertools.product(optics, phantoms, PHOTONS):
        case = simulated(optic, phantom, photons, frame, window)
        for width in WIDTHS:
            stretched = gd.theoretical_psf(OPTICS[optic], window, tuple(v / width for v in VOXEL)).array
            decon = gd.Deconvolver(case.image.shape, stretched, voxel_um=VOXEL, device="cpu", **case.conditions)
            found = decon.check_psf(case.image)
            deviations = None if found is None else found.deviations
            rows.add("check", optic, **case.labels, width=width, deviations=deviations)
            print(f"{optic:12} {phantom:10} {photons:5} photons, width {width}: {deviations}", flush=True)


if __name__ == "__main__":
    main()
