"""The stages of a pipeline. Each is thin: artifacts in, one artifact out."""
