"""Encoded images from the disk, checked before a decoder sees them."""
