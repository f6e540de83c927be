"""Camera: how grey values come from photo-electrons."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real

from gpudecon.errors import InputError


@dataclass(frozen=True)
class Camera:
    """A camera that records ``offset + gain (n + r)`` for n photo-electrons, n ~ Poisson, and read noise r.

    Parameters
    ----------
    offset
        Grey value without light.
    gain
        Grey values per photo-electron.
    read_noise
        Standard deviation of r in electrons.
    """

    offset: float = 0.0
    gain: float = 1.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
                raise InputError(f"Camera: {field.name} is {value!r}; give a number.")
        if self.gain <= 0 or self.read_noise < 0:
            raise InputError(
                f"Camera: gain is {self.gain} and read_noise {self.read_noise}; the gain must be positive, in grey "
                "values per electron, and the read noise not negative, in electrons."
            )

    @property
    def read_variance(self) -> float:
        """Variance of the read noise divided by the gain, in grey values: what it adds to a shifted Poisson model."""
        return self.read_noise**2 * self.gain
