"""The methods that the quality benchmark compares: one literal table.

What gpudecon does not offer is left out, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpudecon.errors import InputError
from gpudecon.methods import Method, make_method

PLAIN = "rl"


@dataclass(frozen=True)
class Variant:
    """A method with options.

    ``limit``: how many iterations its curve has at most, which is also the upper limit for stop="auto"; 0 for a direct
    filter.  ``auto``: run with stop="auto" too.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 0
    auto: bool = False

    def made(self) -> Method:
        """The method; an `InputError` where gpudecon has no such method, option or value."""
        return make_method(self.method, dict(self.options))

    @property
    def default_iterations(self) -> int:
        """Those that a user gets who gives no number; 1 for a direct filter."""
        return int(getattr(self.made(), "iterations", 1))


SHB = {"acceleration": "shb"}

VARIANTS: dict[str, Variant] = {
    PLAIN: Variant("rl", {}, 200, auto=True),
    "rl shb": Variant("rl", SHB, 150, auto=True),
    "rl biggs": Variant("rl", {"acceleration": "biggs"}, 150, auto=True),
    "rl wb": Variant("rl", {"back_projector": "wb"}, 60, auto=True),
    "rl omw": Variant("rl", {"back_projector": "omw"}, 60, auto=True),
    "rl wb shb": Variant("rl", {"back_projector": "wb", **SHB}, 40, auto=True),
    "rl omw shb": Variant("rl", {"back_projector": "omw", **SHB}, 40, auto=True),
    "rl start image": Variant("rl", {"start": "image"}, 200),
    "rl start lowpass": Variant("rl", {"start": "lowpass"}, 200),
    "rl start wiener": Variant("rl", {"start": "wiener"}, 200),
    "rl shb tv": Variant("rl", {"tv": 0.01, **SHB}, 100, auto=True),
    "rl shb goods_roughness": Variant("rl", {"goods_roughness": 0.01, **SHB}, 100),
    "rl shb tikhonov": Variant("rl", {"tikhonov": 0.01, **SHB}, 100),
    "landweber": Variant("landweber", {}, 200, auto=True),
    "gold": Variant("gold", {}, 200, auto=True),
    "ictm": Variant("ictm", {}, 100, auto=True),
    "fista_tv": Variant("fista_tv", {}, 50, auto=True),
    "wiener": Variant("wiener"),
    "wiener spectrum": Variant("wiener", {"noise_to_signal": "spectrum"}),
    "cls": Variant("cls"),
    "cls gcv": Variant("cls", {"gamma": "gcv"}),
    "inverse": Variant("inverse"),
    "median": Variant("median"),
    "tv": Variant("tv"),
    "homomorphic": Variant("homomorphic"),
}

# Total variation in plain Richardson-Lucy: its weights in the section "tv".
TV_VARIANTS: dict[str, Variant] = {
    f"rl tv {weight:g}": Variant("rl", {"tv": weight}, 200) for weight in (0.0005, 0.002, 0.01, 0.05)
}


def offered(table: Mapping[str, Variant]) -> tuple[dict[str, Variant], dict[str, str]]:
    """(those of the table that gpudecon can make, why it cannot make the others)."""
    known, missing = {}, {}
    for name, variant in table.items():
        try:
            variant.made()
        except InputError as error:
            missing[name] = str(error)
        else:
            known[name] = variant
    return known, missing
