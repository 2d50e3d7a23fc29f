"""Composition root: the command line, the configuration and the recipe that join transforms to model handlers."""

__version__ = "0.1.0"
