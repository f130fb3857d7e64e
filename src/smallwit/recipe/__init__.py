"""The recipe of a run: what may stand in it, how it is read from YAML, and what is checked before anything runs."""
