"""Figures: what is drawn is computed apart from the drawing."""
