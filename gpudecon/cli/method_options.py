"""Options of the restoration methods: made from the fields of the classes in `METHODS`, so that none can be missing."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from typing import Any, Literal

from gpudecon.methods import METHODS


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """``--field-name`` for every field of every method; a field that several methods have is one option."""
    group = parser.add_argument_group("options of the methods", "(those of another method are refused)")
    owners: dict[str, list[str]] = {}
    for name, method in METHODS.items():
        for field in dataclasses.fields(method):
            owners.setdefault(field.name, []).append(name)
    for option, names in owners.items():
        hint = typing.get_type_hints(METHODS[names[0]])[option]
        words, number = _parts(hint)
        flag = "--" + option.replace("_", "-")
        uses: dict[str, list[str]] = {}  # methods may mean different things by the same word
        for name in names:
            uses.setdefault(_described(METHODS[name], option), []).append(name)
        text = ". ".join(f"{use} ({_defaults(option, users)})" for use, users in uses.items())
        if hint is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, dest=option)
        elif number is None:
            group.add_argument(flag, choices=words, help=text, dest=option)
        else:
            metavar = "|".join([*words, "N" if number is int else "NUMBER"])
            group.add_argument(flag, type=_reader(words, number), metavar=metavar, help=text, dest=option)


def _defaults(option: str, names: list[str]) -> str:
    """The methods that have the option, grouped by its default."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        default = next(f.default for f in dataclasses.fields(METHODS[name]) if f.name == option)
        groups.setdefault({True: "on", False: "off"}[default] if isinstance(default, bool) else default, []).append(
            name
        )
    return "; ".join(f"{', '.join(owners)}: default {default}" for default, owners in groups.items())


def _described(method: type[Any], option: str) -> str:
    """What the class's docstring says of the option, as one line that argparse can print."""
    found = re.search(rf"^ *{option}\n((?:        .*\n?)+)", method.__doc__ or "", re.MULTILINE)
    if found is None:  # python -OO has no docstrings
        return option.replace("_", " ")
    return " ".join(found[1].split()).rstrip(".").replace("%", "%%")


def method_options(args: argparse.Namespace) -> dict[str, Any]:
    """The method options that were given."""
    names = {field.name for method in METHODS.values() for field in dataclasses.fields(method)}
    return {name: getattr(args, name) for name in sorted(names) if getattr(args, name) is not None}


def _parts(hint: Any) -> tuple[list[str], type | None]:
    """(words, number type) of a Literal, int, float or a union of them."""
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint)), None
    words: list[str] = []
    number: type | None = None
    for part in typing.get_args(hint) or (hint,):
        if typing.get_origin(part) is Literal:
            words += typing.get_args(part)
        elif isinstance(part, type):
            number = part
    return words, number


def _reader(words: list[str], number: type) -> Any:
    def read(text: str) -> Any:
        if text in words:
            return text
        try:
            return number(text)
        except ValueError:
            kind = "a whole number" if number is int else "a number"
            allowed = " or ".join([*(repr(w) for w in words), kind])
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}") from None

    return read
