"""Restoration methods.  To add one: a file with a frozen dataclass, and a line in `METHODS`."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

from gpudecon.errors import InputError
from gpudecon.methods.constrained_least_squares import ConstrainedLeastSquares
from gpudecon.methods.fista_tv import FistaTV
from gpudecon.methods.gold import Gold
from gpudecon.methods.homomorphic import Homomorphic
from gpudecon.methods.ictm import ICTM
from gpudecon.methods.inverse import InverseFilter
from gpudecon.methods.landweber import Landweber
from gpudecon.methods.median import Median
from gpudecon.methods.problem import Method as Method
from gpudecon.methods.problem import Problem as Problem
from gpudecon.methods.richardson_lucy import RichardsonLucy
from gpudecon.methods.total_variation import TotalVariation
from gpudecon.methods.wiener import Wiener

METHODS: MappingProxyType[str, type[Any]] = MappingProxyType(
    {
        "rl": RichardsonLucy,
        "wiener": Wiener,
        "cls": ConstrainedLeastSquares,
        "landweber": Landweber,
        "gold": Gold,
        "ictm": ICTM,
        "fista_tv": FistaTV,
        "tv": TotalVariation,
        "inverse": InverseFilter,
        "median": Median,
        "homomorphic": Homomorphic,
    }
)


def make_method(method: str | Method, options: dict[str, Any]) -> Method:
    """The method of this name with these options, or the given instance (which takes no further options)."""
    if not isinstance(method, str):
        if type(method) not in METHODS.values():
            raise InputError(f"method is {method!r}; give one of {', '.join(METHODS)} or an instance of its class.")
        if options:
            raise InputError(f"The method is an instance already; set {', '.join(options)} when you make it.")
        return method
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}; known are {', '.join(METHODS)}.")
    known = [field.name for field in dataclasses.fields(METHODS[method])]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"Method {method!r} has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    made: Method = METHODS[method](**options)
    return made
