"""Richardson-Lucy: maximum likelihood for Poisson counts, with edges and background."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.acceleration import ACCELERATIONS, Acceleration, Kept
from gpudecon.methods.back_projector import CUTOFF_PER_ALPHA, LEAST_ALPHA, BackProjector, automatic_alpha
from gpudecon.methods.problem import Data, Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.start import Start, start_estimate

SMOOTH = 1e-3  # of the image's brightness: differences below it count as none for the penalties
# An unmatched step that raises the divergence by this fraction is taken back; far ahead, with "shb", it may rise once.
RISE, RISE_AHEAD = 1e-3, 0.02
MOST_TAKEN_BACK = 3  # then all steps are with H^T


@dataclass(frozen=True)
class RichardsonLucy:
    """Richardson-Lucy iteration (Richardson 1972, Lucy 1974; edges: Bertero & Boccacci 2005)::

        f <- f / (H^T 1) * H^T( g / (H f + b) )

    The estimate is non-negative; with background 0 and periodic edges every plain step keeps the flux exactly,
    otherwise nearly so.

    Parameters
    ----------
    iterations
        How many; more give finer detail and more noise.
    acceleration
        "none"; "shb": scaled heavy ball (Wang & Miller, IEEE Trans. Image Process. 23, 2014), each step starting
        from a point y ahead of f_k, with the factors of the optimized gradient method (Kim & Fessler, Math. Program.
        159, 2016): y_k = f_k + (t_k - 1) / t_(k+1) (f_k - f_(k-1)) + t_k / t_(k+1) (f_k - y_(k-1)),
        t_(k+1) = (1 + sqrt(1 + 4 t_k^2)) / 2, t_1 = 1.  Or "biggs": the middle term alone, with a factor from the
        angle between the last two steps (Biggs & Andrews, Appl. Opt. 36, 1997).  They need about a fifth and a quarter
        of the iterations.  Unlike the published forms y goes down exponentially, as f_k exp((y - f_k) / f_k): a voxel
        that were set to 0 would stay 0 for ever.
    back_projector
        "matched": H^T.  "wb": Wiener-Butterworth (Guo et al., Nat. Biotechnol. 38, 2020) and "omw": OTF-masked Wiener
        (Ruan et al. 2024) undo part of the blur in H^T, f <- f max(1 + B( g / (H f + b) - 1 ) / B 1, 1/2), and need
        few iterations, fewest with "shb".  The limit is no maximum of the likelihood: further iterations bring in
        noise.  A step that lowers the likelihood is taken back and made with H^T; after the third, all are.  Where not
        all is measured (edges "extend", masks) every third step is one with H^T.
    alpha
        Of "wb" and "omw": the Wiener constant, B ~ conj(H) / (|H|^2 + alpha); "auto": 5 / SNR of the brightest
        structure, between 0.35 and 1.
    cutoff
        Of "wb" and "omw": the transfer |H| at which the band of B ends; "auto": 0.01 alpha.
    tv
        Weight of total variation (Dey et al., Microsc. Res. Tech. 69, 2006), such as 0.01: smooth regions, sharp edges.
    goods_roughness
        Weight of Good's roughness (Verveer, Gemkow & Jovin, J. Microsc. 193, 1999), such as 0.01: smooth, more so where
        it is dark.
    tikhonov
        Weight of |grad f|^2 / 2, relative to the image's brightness, such as 0.01: smooth everywhere.
    start
        "flat": the image's mean above the background; or the "image" above the background, its "lowpass" by the PSF,
        or the "wiener" filter's result, where these are positive.
    """

    name: ClassVar[str] = "rl"
    counts_only: ClassVar[bool] = True
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset({"non-negative"})

    iterations: int = 30
    acceleration: Acceleration = "none"
    back_projector: Literal["matched", "wb", "omw"] = "matched"
    alpha: float | Literal["auto"] = "auto"
    cutoff: float | Literal["auto"] = "auto"
    tv: float = 0.0
    goods_roughness: float = 0.0
    tikhonov: float = 0.0
    start: Start = "flat"

    def __post_init__(self) -> None:
        check_options(self)
        if self.iterations < 1:
            raise InputError(f"rl: iterations is {self.iterations}; it must be at least 1.")
        for option in ("alpha", "cutoff"):
            given = getattr(self, option)
            if given == "auto":
                continue
            if self.back_projector == "matched":
                raise InputError(
                    f"rl: {option} is {given}, but the back projector 'matched' has none; use 'wb' or 'omw'."
                )
            if not 0 < given < float("inf"):
                raise InputError(f"rl: {option} is {given}; it must be positive, or 'auto'.")
        penalties = [name for name in ("tv", "goods_roughness", "tikhonov") if getattr(self, name) != 0]
        for name in penalties:
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"rl: {name} is {getattr(self, name)}; it must be positive, or 0 for none.")
        if len(penalties) > 1:
            raise InputError(f"rl: {' and '.join(penalties)} were given; use one penalty.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        penalised = self.tv > 0 or self.goods_roughness > 0 or self.tikhonov > 0
        fields, kept = {"none": (1.0, 1.0), "shb": (2.0, 2.0), "biggs": (4.0, 3.0)}[self.acceleration]
        return fields + penalised + (0.0 if self.back_projector == "matched" else kept + 1.0)

    def settled(self, problem: Problem) -> RichardsonLucy:
        """The same with what is automatic chosen for this problem."""
        if self.back_projector == "matched":
            return self
        alpha = automatic_alpha(problem) if self.alpha == "auto" else self.alpha
        cutoff = min(CUTOFF_PER_ALPHA * alpha, 0.5) if self.cutoff == "auto" else self.cutoff
        return dataclasses.replace(self, alpha=alpha, cutoff=cutoff)

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        if self.tv:  # flat regions grow together over long distances
            reach = 13.0 * spread.radius
        elif self.acceleration == "none" and self.back_projector == "matched":
            return 7.0 * spread.radius
        else:
            reach = 10.0 * spread.radius
        if self.back_projector != "omw":
            return reach
        alpha = LEAST_ALPHA if isinstance(self.alpha, str) else self.alpha
        cutoff = CUTOFF_PER_ALPHA * alpha if isinstance(self.cutoff, str) else self.cutoff

        def transfer(h: NDArray[Any], _: NDArray[Any]) -> NDArray[Any]:
            power: NDArray[Any] = np.abs(h) ** 2
            return power**2 / ((power + alpha) * (power**2 + cutoff**4))

        return max(reach, spread.of_filter(transfer))

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops = problem.model, problem.backend.ops
        data = problem.data()
        weights = problem.weights(data)
        estimate = start_estimate(problem, data, weights, self.start)
        penalised = self._penalty(problem)
        steps = ACCELERATIONS[self.acceleration](problem, estimate)

        def matched() -> Array:
            """A step with H^T, from ``model.work`` = H estimate."""
            ops.rl_ratio(model.work, data.image, *data.scene)
            return steps.step(model.adjoint(), penalised(estimate, weights))

        def plain() -> Iterator[Array]:
            while True:
                model.blur(estimate)
                yield matched()

        def unmatched() -> Iterator[Array]:
            projector = self._projector(problem, data, weights)
            fits = _fits(problem, data, RISE_AHEAD if self.acceleration == "shb" else RISE)

            def follows() -> bool:
                """``model.work`` <- H estimate; whether that fits the data nearly as well as the best before it."""
                return bool(problem.record.number("fits", functools.partial(fits, model.blur(estimate))))

            follows()
            kept, taken_back = Kept(problem, steps), 0
            seen = tuple(slice(n) for n in data.image.shape)
            for k in itertools.count(1):
                if projector.rests(k):
                    latest = matched()
                    follows()
                else:
                    kept.keep()
                    latest = steps.step(projector.factor(), penalised(estimate, None))
                    if not follows():
                        taken_back += 1
                        kept.take_back()
                        model.blur(estimate)
                        latest = matched()
                        follows()
                kept.free[seen] = model.work[seen]  # which is others' until the next step
                yield latest
                if taken_back == MOST_TAKEN_BACK:
                    return
                model.work[seen] = kept.free[seen]

        first = iter(()) if self.back_projector == "matched" else unmatched()
        yield from itertools.islice(itertools.chain(first, plain()), self.iterations)

    def _projector(self, problem: Problem, data: Data, weights: Array | None) -> BackProjector:
        assert self.back_projector != "matched"
        chosen = self.settled(problem)
        assert not isinstance(chosen.alpha, str)
        assert not isinstance(chosen.cutoff, str)
        return BackProjector(problem, data, weights, self.back_projector, chosen.alpha, chosen.cutoff)

    def _penalty(self, problem: Problem) -> Callable[[Array, Array | None], Array | None]:
        """What makes an update's weights of H^T's: the one-step-late form (Green, IEEE Trans. Med. Imaging 9, 1990)."""
        ops, brightness = problem.backend.ops, problem.highest - problem.background
        finest = min(problem.voxel_um)
        scales = [finest / v for v in problem.voxel_um]
        if not (self.tv or self.goods_roughness or self.tikhonov):
            return lambda _, weights: weights
        out = problem.model.empty()

        def penalised(estimate: Array, weights: Array | None) -> Array:
            if self.tv:
                # differences over the brightness, whose squares are in float32's range whatever the image's units
                relative = [s / brightness for s in scales]
                ops.tv_factor(out, estimate, weights, self.tv * brightness, SMOOTH, *relative)
            elif self.goods_roughness:
                ops.good_factor(out, estimate, weights, self.goods_roughness, SMOOTH * brightness, *scales)
            else:
                ops.tikhonov_factor(out, estimate, weights, self.tikhonov / brightness, *scales)
            return out

        return penalised


def _fits(problem: Problem, data: Data, rise: float) -> Callable[[Array], bool]:
    """A function of H f: whether the I-divergence of the data from it is by at most ``rise`` above the lowest."""
    rows = problem.backend.xp.empty(data.image.shape[:2], np.float64)
    lowest = math.inf

    def fits(work: Array) -> bool:
        nonlocal lowest
        problem.backend.ops.poisson_divergence(rows, work, data.image, *data.scene)
        now, limit = float(rows.sum()), (1 + rise) * lowest
        lowest = min(lowest, now)
        return now <= limit

    return fits
