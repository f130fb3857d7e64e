"""The steps of a `dataset` stage, one module each. A new step is a new module here and nothing else."""
