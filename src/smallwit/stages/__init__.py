"""The kinds of stages. Each reads artifacts and makes one artifact."""
