"""The version, for the build and for provenance records."""

__version__ = "0.1.0"
