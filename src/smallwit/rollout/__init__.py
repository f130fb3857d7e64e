"""Rollout engines: where a model's own completions come from."""
