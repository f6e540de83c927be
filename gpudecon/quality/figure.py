"""Pictures of stacks: maximum projections along z and y, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_projections(
    path: str | Path, stacks: Mapping[str, NDArray[Any]], voxel_um: tuple[float, float, float]
) -> None:
    """Write a PNG with a column per stack (z, y, x): the xy projection above, the xz projection below, in um.

    Each stack is shown from its 1st percentile to its 99.9th, since the stacks may be in different units.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dz, dy, dx = voxel_um
    nz, ny, nx = next(iter(stacks.values())).shape
    heights = [ny * dy, nz * dz]
    width = 3.4
    figure = Figure(figsize=(width * len(stacks), width * sum(heights) / (nx * dx) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, len(stacks), height_ratios=heights, squeeze=False)
    for column, (title, stack) in enumerate(stacks.items()):
        low, high = np.percentile(stack, (1, 99.9))
        for row, (axis, extent) in enumerate(((0, (0, nx * dx, ny * dy, 0)), (1, (0, nx * dx, nz * dz, 0)))):
            panel = rows[row, column]
            panel.imshow(
                stack.max(axis=axis), extent=extent, vmin=low, vmax=high, cmap="inferno", interpolation="nearest"
            )
            panel.set_title(title if row == 0 else "", fontsize=11)
            panel.set_xlabel("x (µm)" if row == 1 else "")
            panel.set_ylabel(("y (µm)", "z (µm)")[row] if column == 0 else "")
            panel.tick_params(labelsize=8, labelbottom=row == 1, labelleft=column == 0)
    figure.savefig(path, dpi=110)
