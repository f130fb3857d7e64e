"""The row sources of the step `gather`, one module each. A new source is a new module here and nothing else."""
