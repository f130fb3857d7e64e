"""The parts of a reward that a recipe can name, one a file. Importing them does not import torch."""
