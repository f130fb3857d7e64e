"""Evaluation: a frozen protocol, one row for each sample, and scores with their statistics."""
