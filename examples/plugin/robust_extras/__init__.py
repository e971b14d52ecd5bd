"""A package of one's own components: importing it registers them."""

from robust_extras import focal, mlp, noise, tiny_digits

__all__ = ["focal", "mlp", "noise", "tiny_digits"]
