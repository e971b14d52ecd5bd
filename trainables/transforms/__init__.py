"""Transforms, what stands before the network: one file each beside `base`."""
