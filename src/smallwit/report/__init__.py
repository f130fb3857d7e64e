"""Reports of a run: the table in the terminal, and one HTML file that opens offline."""
