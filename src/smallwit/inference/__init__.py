"""Ask models for completions: engines, servers, replies and what they cost."""
