"""Regimes, how a batch becomes a loss: one file each beside `base`."""
