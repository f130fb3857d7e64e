"""Functions that several kinds of stages share."""
