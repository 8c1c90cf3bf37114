"""Wherry: a complete container platform."""

__version__ = "0.1.0"
