"""Our warnings as part of a record: shown as always, and kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect the texts of our warnings for the record, and still show them."""
    said: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        said.append(str(message))
        show(message, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.showwarning = note
        yield said
