"""rrtf: ranking feedback for code models (RRTF, arXiv:2307.14936), from seeds to report."""

__version__ = "0.1.0"
