"""Align & Filter: asynchronous on-policy reinforcement learning under policy lag (VACO, arXiv 2603.01365)."""

__version__ = "0.1.0"
