"""Training signals as losses on tokens: one chunked head, and pure functions on what comes out of it."""
