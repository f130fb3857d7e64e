"""The recipe of a run: its settings, its YAML file, and the checks of its references."""
