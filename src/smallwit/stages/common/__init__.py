"""What the runs of several kinds of stages share."""
