"""Beam transforms, one module a stage, and the records that travel between them."""
