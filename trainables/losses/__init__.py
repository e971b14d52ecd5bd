"""Losses: one file each beside `base`."""
