"""Pictures of restorations: for each phantom a row of lateral and one of axial projections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_cases import DENSE, VOXEL, Case
from quality_curve import Curve

from gpudecon.quality.metrics import nrmse

PICTURED = ("rl", "rl shb", "rl wb", "rl shb tv", "wiener")
COLOURS = 64  # in the file: enough for one colour map, and small


def save_picture(path: Path, optic: str, pictures: Mapping[str, tuple[Case, Mapping[str, Curve]]]) -> None:
    """Write a PNG: truth, image, and each method at its least NRMSE, which stands above it with its iteration.

    Dense phantoms as sections through the middle, where a projection would hide what is inside; sparse ones as
    maximum projections.  Each panel goes from black at its 1st percentile to white at its 99.9th.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    methods = [name for name in PICTURED if any(name in curves for _, curves in pictures.values())]
    case = next(iter(pictures.values()))[0]
    dz, _, dx = VOXEL
    nz, ny, nx = case.truth.shape
    heights, columns, width = [ny * dx, nz * dz] * len(pictures), 2 + len(methods), 1.75
    height = width / (nx * dx) * sum(heights) + 0.45 * len(pictures) + 0.5
    figure = Figure(figsize=(width * columns + 0.5, height), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), columns, height_ratios=heights, squeeze=False)
    for line, (phantom, (case, curves)) in enumerate(pictures.items()):
        shown: dict[str, tuple[str, NDArray[Any]]] = {
            "truth": (f"{phantom}: truth", case.truth),
            "image": (f"image {nrmse(case.image, case.truth):.3f}", case.image),
        }
        for name, curve in curves.items():
            at = f" @{curve.best_iteration}" if len(curve.errors) > 1 else ""
            shown[name] = f"{name} {curve.least:.3f}{at}", curve.best
        for column, name in enumerate(["truth", "image", *methods]):
            above, below = panels[2 * line, column], panels[2 * line + 1, column]
            if name not in shown:
                above.set_axis_off()
                below.set_axis_off()
                continue
            title, stack = shown[name]
            above.set_title(title, fontsize=10)
            _show(above, _flat(phantom, stack, 0), (nx * dx, ny * dx), "y (µm)" if column == 0 else "")
            _show(below, _flat(phantom, stack, 1), (nx * dx, nz * dz), "z (µm)" if column == 0 else "")
            below.tick_params(labelbottom=line == len(pictures) - 1)
            if line == len(pictures) - 1:
                below.set_xlabel("x (µm)", fontsize=9)
    photons = case.labels["photons"]
    figure.suptitle(f"{optic}, {photons} photons at the peak: NRMSE @ iteration of the least", fontsize=12)
    canvas.draw()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture.quantize(COLOURS).save(path, optimize=True)


def _flat(phantom: str, stack: NDArray[Any], axis: int) -> NDArray[Any]:
    return stack.take(stack.shape[axis] // 2, axis) if phantom in DENSE else stack.max(axis=axis)


def _show(panel: Any, plane: NDArray[Any], size: tuple[float, float], label: str) -> None:
    low, high = np.percentile(plane, (1, 99.9))
    extent = (0, size[0], size[1], 0)
    panel.imshow(plane, extent=extent, vmin=low, vmax=max(high, low + 1e-12), cmap="gray", interpolation="nearest")
    panel.tick_params(labelsize=8, labelbottom=False, labelleft=bool(label))
    panel.set_ylabel(label, fontsize=9)
