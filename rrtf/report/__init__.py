"""Notebooks to reports: `kernel` runs one, `pages` renders it, `pipeline` runs a profile."""
