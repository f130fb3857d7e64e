"""Construction of datasets: gather, generate, verify, filter, deduplicate, decontaminate, write; and their inspection.

Each step takes a stream of rows and returns a stream of rows (`step.py`, `steps/`); `build.py` runs the steps of a
recipe.
"""
