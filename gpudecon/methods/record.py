"""Record: what only the whole of an image can tell, noted as numbers and told again to its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gpudecon.errors import RunError


class Record:
    """Numbers that depend on all of an image, noted under a name in the order of the calls.

    Methods ask here wherever they sum over the image, look for its extremes or measure its noise::

        momentum = record.number("momentum", lambda: dot(step, last_step) / last_norm)

    Names in ``told``, which is what another record has ``noted``, have their values from there, and the function is not
    called.  ``is_part`` says that the image is a part of the one that the numbers were noted for: then nothing else
    may be made, and the whole has been checked and warned of.  Raises `RunError` where a number is missing.
    """

    def __init__(self, told: Mapping[str, Sequence[float]] | None = None, *, is_part: bool = False) -> None:
        self._told: dict[str, Iterator[float]] = {name: iter(values) for name, values in (told or {}).items()}
        self.is_part = is_part
        self.noted: dict[str, list[float]] = {}

    def number(self, name: str, make: Callable[[], float]) -> float:
        """The next number of this name."""
        if name in self._told or self.is_part:
            value = next(self._told.get(name, iter(())), None)
            if value is None:
                raise RunError(
                    f"The constants hold {len(self.noted.get(name, ()))} values of {name!r} and one more is needed; "
                    "they were decided with other settings, so decide them again."
                )
        else:
            value = float(make())
        self.noted.setdefault(name, []).append(value)
        return value

    def numbers(self, name: str, make: Callable[[], Sequence[float]]) -> list[float]:
        """All numbers of this name, such as a profile: they are made together."""
        if name in self._told:
            values = list(self._told[name])
        elif self.is_part:
            raise RunError(f"The constants hold no {name!r}: they were decided with other settings; decide them again.")
        else:
            values = [float(value) for value in make()]
        self.noted[name] = values
        return values
