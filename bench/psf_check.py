"""Whether a PSF that is 1.5 times too wide is found, and the true one left alone: by --check-psf and by the residual.

python bench/psf_check.py -o bench/results/psf_check.jsonl     # about 8 minutes
python bench/psf_check.py --quick -o /tmp/psf_check.jsonl

Section ``check``: ``deviations``, by how many standard deviations a PSF narrower by 1.5 predicts held-out counts better
than the given one, which is stretched by ``width``.  More than 5 are warned of.  Section ``residual``: ``is_warned``,
whether 30 iterations of plain Richardson-Lucy with that PSF end with the warning.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from pathlib import Path

from quality_cases import OPTICS, VOXEL, simulated
from rows import Rows, environment

import gpudecon as gd
from gpudecon.quality import psf_width

FRAME, WINDOW = (24, 80, 80), (25, 33, 33)
PHANTOMS = ("nuclei", "shells", "filaments", "beads")
SEEDS = (1, 2)  # of the specimens whose residual is looked at
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
    for optic, phantom, photons, seed in itertools.product(optics, phantoms, PHOTONS, SEEDS):
        case = simulated(optic, phantom, photons, frame, window, seed=seed)
        for width in WIDTHS:
            stretched = gd.theoretical_psf(OPTICS[optic], window, tuple(v / width for v in VOXEL)).array
            decon = gd.Deconvolver(case.image.shape, stretched, voxel_um=VOXEL, device="cpu", **case.conditions)
            if seed == SEEDS[0]:
                found = decon.check_psf(case.image)
                deviations = None if found is None else found.deviations
                rows.add("check", optic, **case.labels, width=width, deviations=deviations)
                print(f"{optic:12} {phantom:10} {photons:5} photons, width {width}: {deviations}", flush=True)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                decon(case.image)
            is_warned = any("finer than the PSF lets through" in str(warning.message) for warning in said)
            rows.add("residual", optic, **case.labels, width=width, is_warned=is_warned)


if __name__ == "__main__":
    main()
