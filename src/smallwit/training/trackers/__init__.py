"""Experiment trackers, one a file: a class with a `name` registers itself."""
