"""A picture of a PSF: sections, profiles and the OTF with the border of its support."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.psf.otf_support import OTFSupport
from gpudecon.psf.psf import PSF

DECADES = 4  # of the logarithmic scales


def save_psf_figure(path: str | Path, psf: PSF, title: str = "", support: OTFSupport | None = None) -> None:
    """Write a PNG: xy and xz through n // 2 on a logarithmic scale, profiles along the axes, and the OTF (kz, kx)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    array = psf.array if psf.array.ndim == 3 else psf.array[None]
    voxel = (1.0,) * array.ndim if psf.voxel_um is None else (1.0, *psf.voxel_um)[-3:]
    unit = "voxels" if psf.voxel_um is None else "µm"
    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    (xy, xz), (lines, otf) = figure.subplots(2, 2)
    cz, cy, cx = (n // 2 for n in array.shape)
    _section(xy, array[cz], voxel[1:], ("x", "y"), unit, float(array.max()))
    _section(xz, array[:, cy], (voxel[0], voxel[2]), ("x", "z"), unit, float(array.max()))
    profiles = {"x": array[cz, cy], "y": array[cz, :, cx], "z": array[:, cy, cx]}
    for (name, line), v, dash in zip(profiles.items(), voxel[::-1], ("-", "--", "-"), strict=True):
        distance = (np.arange(len(line)) - len(line) // 2) * v
        lines.semilogy(distance, np.maximum(line / array.max(), 1e-9), dash, label=name)
    lines.set(xlabel=f"distance ({unit})", ylabel="relative intensity", ylim=(10.0**-DECADES, 1.5))
    lines.legend(frameon=False)
    _otf(otf, array, voxel, unit, support)
    figure.savefig(path, dpi=110)


def _section(
    panel: Any, plane: NDArray[Any], pixel: tuple[float, ...], names: tuple[str, str], unit: str, peak: float
) -> None:
    ny, nx = plane.shape
    bottom, right = (ny - ny // 2 - 0.5) * pixel[0], (nx - nx // 2 - 0.5) * pixel[1]
    extent = (right - nx * pixel[1], right, bottom, bottom - ny * pixel[0])
    values = np.log10(np.maximum(plane / peak, 10.0**-DECADES))
    shown = panel.imshow(values, extent=extent, vmin=-DECADES, vmax=0, cmap="inferno", interpolation="nearest")
    panel.set(xlabel=f"{names[0]} ({unit})", ylabel=f"{names[1]} ({unit})")
    panel.figure.colorbar(shown, ax=panel, label="log10 of relative intensity", shrink=0.8)


def _otf(panel: Any, array: NDArray[Any], voxel: tuple[float, ...], unit: str, support: OTFSupport | None) -> None:
    """|OTF| in the plane ky = 0: the transform of the PSF summed over y."""
    nz, _, nx = array.shape
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(array.sum(axis=1, dtype=np.float64))))
    values = np.log10(np.maximum(spectrum / spectrum.max(), 10.0**-DECADES))
    sides = []
    for n, v in ((nx, voxel[2]), (nz, voxel[0])):
        k = np.fft.fftshift(np.fft.fftfreq(n, v))
        sides += [k[0] - 0.5 / (n * v), k[-1] + 0.5 / (n * v)]
    extent = (sides[0], sides[1], sides[3], sides[2])
    panel.imshow(values, extent=extent, vmin=-DECADES, vmax=0, cmap="viridis", interpolation="nearest", aspect="auto")
    if support is not None and nz > 1:
        for sign_z in (-1, 1):
            for sign_x in (-1, 1):
                panel.plot(sign_x * support.lateral, sign_z * support.axial, color="white", linewidth=0.8)
        panel.set(xlim=sides[:2], ylim=sides[2:])
    title = "log10 |OTF|" + (", white: limit of the optics" if support is not None else "")
    panel.set(xlabel=f"kx (1/{unit})", ylabel=f"kz (1/{unit})", title=title)
