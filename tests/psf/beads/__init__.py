"""Measured PSFs: simulated beads with known truth."""
