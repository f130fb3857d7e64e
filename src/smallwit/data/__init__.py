"""Datasets: gathered, filtered, freed of copies and of evaluation problems, written with a card; read again, looked at.

A step takes a stream of rows and gives a stream of rows (`step.py`); `build.py` strings the steps of a recipe together.
"""
