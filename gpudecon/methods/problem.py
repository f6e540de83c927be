"""Problem: what a method is given; Method: what a method is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from gpudecon.backend import Array, Backend
from gpudecon.errors import InputError
from gpudecon.forward import ForwardModel


@dataclass(frozen=True)
class Problem:
    """One image to restore, on one backend: g ~ Poisson(H f + background).

    ``image`` is float32 on the image's box (z, y, x); ``voxel_um`` (z, y, x) weighs differences along the axes, equal
    sizes where the true ones are not known.  ``highest`` is the image's largest value.
    """

    backend: Backend
    model: ForwardModel
    image: Array
    background: float
    voxel_um: tuple[float, float, float]
    highest: float


class Method(Protocol):
    """A restoration method: a frozen dataclass whose fields are its options, and one generator.

    `iterate` yields the current estimate on the domain after every iteration; a direct filter yields once.  The yielded
    array is valid until the next step, and ``problem.model.work`` is free for others meanwhile.  Stopping, callbacks,
    timing and checks are the driver's.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    counts_only: ClassVar[bool]  # whether the method takes the image for counts, which cannot be negative

    def iterate(self, problem: Problem) -> Iterator[Array]: ...


def check_options(method: Any) -> None:
    """Check the types of a method's fields: Literal, int, float, bool, and unions of them."""
    hints = get_type_hints(type(method))
    for field in dataclasses.fields(method):
        given, hint = getattr(method, field.name), hints[field.name]
        parts = get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)
        words = [w for part in parts if get_origin(part) is Literal for w in get_args(part)]
        types = tuple(t for t in parts if isinstance(t, type))
        number = isinstance(given, Real) and not isinstance(given, bool)
        whole = isinstance(given, Integral) and not isinstance(given, bool)
        fits = (
            (isinstance(given, str) and given in words)
            or (float in types and number)
            or (int in types and whole)
            or (bool in types and isinstance(given, bool))
        )
        if not fits:
            allowed = [repr(w) for w in words] + [
                {"int": "a whole number", "float": "a number", "bool": "True or False"}[t.__name__] for t in types
            ]
            raise InputError(f"{type(method).name}: {field.name} is {given!r}; it must be {' or '.join(allowed)}.")
