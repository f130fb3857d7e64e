"""The methods of the step `augment`, one module each. A new method is a new module here and nothing else."""
