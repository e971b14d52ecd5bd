"""Data sets: one file each beside `base`."""
