"""Rollout engines, one a file: the settings that a recipe gives, and how the engine is opened on a model."""
