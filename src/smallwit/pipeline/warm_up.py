"""Imported by the fork server: it computes once what each process of a stage would compute again."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

# Loading and saving a model looks here for its family, and the first look compiles patterns for all families: 0.2 s.
get_checkpoint_conversion_mapping("qwen2")
