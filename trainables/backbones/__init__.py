"""Backbones: one file each beside `base`."""
