"""What a run looks like: the table in the terminal, and one HTML file that opens offline."""
