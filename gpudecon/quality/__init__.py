"""How good an image or a restoration is."""
