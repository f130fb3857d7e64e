"""A study: many pipelines with the same budget and seeds, their scores, and what these advise."""
