"""Constants: what is decided once for a whole image, so that its parts can be restored one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpudecon.errors import InputError
from gpudecon.methods import METHODS, Method


@dataclass(frozen=True)
class Constants:
    """All that restoring a part of an image must take from the whole; `Deconvolver.decide` makes it.

    ``asked`` is the method as it was asked for.  ``method`` is the same with numbers for what was automatic, and with
    the number of iterations that a stop rule chose.  ``recorded`` holds, by name, what was looked up in the whole on
    the way (see `gpudecon.methods.record.Record`): its background and highest grey value (as recorded, with the
    camera's offset), the level of the flat start, and what the method needs of factors, steps, weights and spectra.
    """

    asked: Method
    method: Method
    recorded: Mapping[str, tuple[float, ...]]

    @property
    def background(self) -> float:
        """In the image's grey values; of a background image its median."""
        return self.recorded["background"][0]

    @property
    def highest(self) -> float:
        """The largest grey value."""
        return self.recorded["highest"][0]

    @property
    def iterations(self) -> int:
        """Iterations of each part; 1 for a direct filter."""
        return int(getattr(self.method, "iterations", 1))

    def summary(self) -> dict[str, Any]:
        """For a record of the restoration: the options in numbers, and by its name what was looked up once."""
        once = {name: values[0] for name, values in self.recorded.items() if len(values) == 1}
        return {"options": dataclasses.asdict(self.method), **once}

    def check(self, method: Method) -> None:
        """Refuse to serve another method than the one that was asked for."""
        if method != self.asked:
            raise InputError(
                f"The constants were decided for {self.asked}, not for {method}; decide them again, or give the same "
                "method, options and stop rule."
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which keeps every bit of the numbers."""
        return {
            "asked": _described(self.asked),
            "method": _described(self.method),
            "recorded": {name: list(values) for name, values in self.recorded.items()},
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Constants:
        """The constants that `to_dict` described."""
        recorded = {name: tuple(float(value) for value in values) for name, values in described["recorded"].items()}
        return cls(_made(described["asked"]), _made(described["method"]), recorded)


def _described(method: Method) -> dict[str, Any]:
    return {"name": method.name, **dataclasses.asdict(method)}


def _made(described: Mapping[str, Any]) -> Method:
    options = dict(described)
    made: Method = METHODS[options.pop("name")](**options)
    return made
