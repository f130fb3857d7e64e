"""The objectives that a recipe can name, one a file. Importing them does not import torch."""
