"""Images that are read over a network: addresses such as https://... and s3://..., through fsspec."""

from __future__ import annotations

from typing import Any

from gpudecon.errors import InputError


def is_address(path: str) -> bool:
    """Whether ``path`` names something on another machine and not a file."""
    return "://" in path


def check_readable(address: str) -> None:
    """InputError where what the address needs is not installed."""
    try:
        import fsspec

        fsspec.get_filesystem_class(address.partition("://")[0])
    except ImportError as error:  # of fsspec itself, or as fsspec says what is missing for this kind
        raise InputError(
            f'{address} is read over the network, which needs the extra: pip install "gpudecon[remote]" ({error}).'
        ) from error
    except ValueError as error:
        raise InputError(f"{address} is no address that can be read: {error}; use https:// or s3://.") from error


def open_file(address: str) -> Any:
    """The file at an address, open for reading any part of it; a context manager."""
    import fsspec

    return fsspec.open(address, "rb")
