"""Whole jobs: files in, files out."""
