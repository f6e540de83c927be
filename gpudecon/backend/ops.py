"""NumpyOps: the definition of every CUDA kernel in a few lines of NumPy, and the CPU's implementation of it.

``kernels/*.cu`` holds one kernel for each method here, with the same name and the same arguments (there followed by
the sizes).  The first argument is always the one written.  Shapes and layout:

* ``work``, ``estimate``, ``previous``, ``weights``, ``target``, ``other``, ``source``: float32 on the domain
  (Z, Y, X), the padded box the FFT works on;
  rows may lie further apart than X (``pitch``), because ``work`` shares its memory with its own half spectrum.
* ``image``: on its own box (z, y, x), which is the corner at index 0 of the domain; there too ``background_image``,
  float32, and ``mask``, one byte per voxel, not 0 where the image is a measurement; both may be None.
* ``spectrum``, ``otf``: complex64 (Z, Y, X // 2 + 1), contiguous.  ``otf`` carries the factor 1 / (Z Y X) of the
  unnormalised inverse FFT.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend.least_squares import LeastSquaresOps
from gpudecon.backend.richardson_lucy import RichardsonLucyOps
from gpudecon.backend.roughness import RoughnessOps
from gpudecon.backend.scene import foreseen
from gpudecon.backend.slabs import at_least, by_slabs
from gpudecon.backend.total_variation import TotalVariationOps

Array = Any  # a NumPy array on the CPU, a CuPy array on a GPU


class Ops(Protocol):
    """What a backend computes besides FFTs; `NumpyOps` is the definition."""

    def load_extended(self, work: Array, image: Array) -> None: ...
    def multiply_otf(self, spectrum: Array, otf: Array, conjugate: bool) -> None: ...
    def rl_ratio(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None: ...
    def rl_excess(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None: ...
    def rl_unmatched_factor(self, work: Array, weights: Array | None) -> None: ...
    def rl_step(self, work: Array, step: Array, estimate: Array, weights: Array | None) -> None: ...
    def rl_predict(self, estimate: Array, previous: Array, work: Array, momentum: float) -> None: ...
    def tv_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None: ...
    def good_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None: ...
    def tikhonov_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None: ...
    def rl_update(self, estimate: Array, work: Array, weights: Array | None) -> None: ...
    def rl_update_momentum(
        self, estimate: Array, previous: Array, work: Array, weights: Array | None, momentum: float, excess: float
    ) -> None: ...
    def regularized_filter(
        self,
        spectrum: Array,
        otf: Array,
        laplacian_z: Array,
        laplacian_y: Array,
        laplacian_x: Array,
        noise_to_signal: float,
        gamma: float,
        scale: float,
    ) -> None: ...
    def poisson_divergence(
        self,
        rows: Array,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None: ...
    def store_cropped(self, out: Array, source: Array, scale: float, offset: float) -> None: ...
    def radial_expand(
        self, out: Array, table: Array, centre_y: float, centre_x: float, pitch_y: float, pitch_x: float
    ) -> None: ...
    def residual(
        self, work: Array, image: Array, background: float, background_image: Array | None, mask: Array | None
    ) -> None: ...
    def projected_step(self, estimate: Array, work: Array, step: float, lowest: float) -> None: ...
    def bounded_sum(
        self,
        target: Array,
        other: Array,
        estimate: Array,
        target_factor: float,
        other_factor: float,
        lowest: float,
    ) -> None: ...
    def inner_product(self, rows: Array, work: Array, other: Array) -> None: ...
    def tv_dual(
        self,
        dual: Array,
        lead: Array,
        estimate: Array,
        step_z: float,
        step_y: float,
        step_x: float,
        momentum: float,
    ) -> None: ...
    def tv_primal(
        self,
        estimate: Array,
        source: Array,
        dual: Array,
        weight_z: float,
        weight_y: float,
        weight_x: float,
        lowest: float,
    ) -> None: ...
    def tv_gap(
        self, rows: Array, estimate: Array, dual: Array, scale_z: float, scale_y: float, scale_x: float
    ) -> None: ...


def mirror_taper(position: NDArray[np.intp], n: int, length: int) -> tuple[Any, Any, Any]:
    """Source indices and weight of the second one that continue ``n`` samples periodically over ``length``.

    Inside, a sample is itself.  In the margin the mirror image of the upper end fades (raised cosine) into the mirror
    image of the lower end, so that the periodic continuation has no jump: value = (1 - w) a[first] + w a[second].
    """
    margin = max(length - n, 1)
    into = position - n
    first, second = _mirrored(position, n), _mirrored(position - length, n)
    weight = np.where(into < 0, 0.0, 0.5 - 0.5 * np.cos(np.pi * (into + 0.5) / margin)).astype(np.float32)
    return first, np.where(into < 0, position, second), weight


def _mirrored(position: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Index of the sample that stands at ``position`` when ``n`` samples and their mirror image alternate."""
    phase = position % (2 * n)
    return np.where(phase < n, phase, 2 * n - 1 - phase)


class NumpyOps(RichardsonLucyOps, RoughnessOps, LeastSquaresOps, TotalVariationOps):
    """The CPU's operations; each body is the specification of the kernel of the same name."""

    def load_extended(self, work: Array, image: Array) -> None:
        """Work <- float32(image), continued into the margin by `mirror_taper` along every axis."""
        (z0, z1, wz), (y0, y1, wy), (x0, x1, wx) = (
            mirror_taper(np.arange(length), n, length) for n, length in zip(image.shape, work.shape, strict=True)
        )

        def planes(cut: slice) -> None:
            for z in range(cut.start, cut.stop):
                plane = image[z0[z]].astype(np.float32)
                if wz[z]:
                    plane += wz[z] * (image[z1[z]].astype(np.float32) - plane)
                plane = plane[y0] + wy[:, None] * (plane[y1] - plane[y0])
                work[z] = plane[:, x0] + wx * (plane[:, x1] - plane[:, x0])

        self.slabs.run(work.shape[0], work[0].nbytes, planes)

    @by_slabs
    def multiply_otf(self, spectrum: Array, otf: Array, conjugate: bool) -> None:
        """Spectrum <- spectrum * otf, or spectrum * conj(otf)."""
        if conjugate:  # a conj(b) = conj(conj(a) b): no temporary array
            np.conjugate(spectrum, out=spectrum)
        spectrum *= otf
        if conjugate:
            np.conjugate(spectrum, out=spectrum)

    @by_slabs
    def regularized_filter(
        self,
        spectrum: Array,
        otf: Array,
        laplacian_z: Array,
        laplacian_y: Array,
        laplacian_x: Array,
        noise_to_signal: float,
        gamma: float,
        scale: float,
    ) -> None:
        """Spectrum <- conj(H) spectrum / (|H|^2 + noise_to_signal + gamma L^2) / scale with H = scale * otf and
        L = laplacian_z[k] + laplacian_y[j] + laplacian_x[i]; 0 where the denominator is below the normal numbers,
        where GPUs flush it to 0 and the quotient overflows.

        ``laplacian_z`` has the shape (Z, 1); the other two are vectors.
        """
        transfer = otf * np.float32(scale)
        laplacian = laplacian_z[:, :, None] + laplacian_y[:, None] + laplacian_x
        denominator = transfer.real**2 + transfer.imag**2
        denominator += np.float32(noise_to_signal) + np.float32(gamma) * laplacian * laplacian
        usable = denominator >= np.finfo(np.float32).tiny
        inverse = np.divide(np.float32(1 / scale), denominator, out=np.zeros_like(denominator), where=usable)
        spectrum *= np.conj(transfer)
        spectrum *= inverse

    @by_slabs
    def poisson_divergence(
        self,
        rows: Array,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        """rows[z, y] <- sum over x, where ``mask`` is not 0, of m - g + g log(g / m) with g = image and
        m = max(work + background + background_image, floor).

        Csiszar's I-divergence (Ann. Stat. 19, 1991): the Poisson log-likelihood up to a constant and the sign.
        ``rows`` is float64 (z, y).
        """
        model = at_least(foreseen(work, image, background, background_image), floor)
        logarithm = image / model
        at_least(logarithm, 1e-37)  # a normal number, also on a GPU: 0 log 0 = 0
        np.log(logarithm, out=logarithm)
        logarithm *= image
        model -= image
        model += logarithm
        if mask is not None:
            np.copyto(model, np.float32(0), where=mask == 0)
        rows[...] = model.sum(axis=2, dtype=np.float64)

    @by_slabs
    def store_cropped(self, out: Array, source: Array, scale: float, offset: float) -> None:
        """Out <- (source - offset) * scale on the box of ``out``; integers are rounded half to even and clipped."""
        nz, ny, nx = out.shape
        inside = source[:nz, :ny, :nx]
        if offset != 0.0 or scale != 1.0:
            inside = (inside - np.float32(offset)) * np.float32(scale)
        if out.dtype.kind == "u":
            inside = np.clip(np.rint(inside), 0, np.iinfo(out.dtype).max)
        out[...] = inside

    def radial_expand(
        self, out: Array, table: Array, centre_y: float, centre_x: float, pitch_y: float, pitch_x: float
    ) -> None:
        """out[z, y, x] <- table[z] at rho = sqrt(((y - centre_y) pitch_y)^2 + ((x - centre_x) pitch_x)^2).

        ``table`` (z, samples) holds rho = 0, 1, 2, ... and continues evenly below 0; the value is that of the cubic
        through the four nearest samples, of which two must lie beyond the largest rho.
        """
        y, x = (
            (np.arange(n) - c) * p
            for n, c, p in zip(out.shape[1:], (centre_y, centre_x), (pitch_y, pitch_x), strict=True)
        )
        rho = np.sqrt(np.add.outer(y * y, x * x))
        i = rho.astype(np.intp)
        t = (rho - i).astype(np.float32)
        weights = (
            t * (t - 1) * (2 - t) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            (t + 1) * t * (2 - t) / 2,
            (t + 1) * t * (t - 1) / 6,
        )
        taps = list(zip((np.where(i > 0, i - 1, 1), i, i + 1, i + 2), weights, strict=True))

        def planes(cut: slice) -> None:
            for profile, plane in zip(table[cut], out[cut], strict=True):
                plane[...] = sum(weight * profile[index] for index, weight in taps)

        self.slabs.run(len(out), 4 * out[0].nbytes, planes)
