"""Measures: what can be told of a clip from its pictures, each a module, each a few columns of the dataset.

A measure is a name, its columns and a function from a `ClipView` to their values (`measures.view`); a job runs those
that its configuration names, all on frames that are decoded once (`measures.measurer`).
"""
