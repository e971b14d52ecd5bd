"""Attacks: one file each beside `base`, `budgets` and `surfaces`."""
