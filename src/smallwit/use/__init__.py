"""What is done with a finished model: it is talked to, served, and uploaded to the hub."""
