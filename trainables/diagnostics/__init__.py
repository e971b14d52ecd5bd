"""Diagnostics, what is measured beside attacks: one file each beside `base`."""
