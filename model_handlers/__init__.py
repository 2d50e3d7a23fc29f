"""Beam model handlers: embedders, teachers and selectors, and the catalogue that names them."""
