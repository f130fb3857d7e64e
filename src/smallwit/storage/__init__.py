"""Files that outlive a process: artifacts, append-only logs, locks, JSON Lines."""
