"""Reads tracked results: figures, tables, statistics and the report. No torch, no Ray."""
