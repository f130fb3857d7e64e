"""Output for people: terminal, progress bars, sanitised text."""
