"""Evaluation: a frozen protocol, one row a sample, and statistics that come with the score."""
