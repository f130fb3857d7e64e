"""What a run looks like: the table in the terminal, and one HTML file that opens offline."""

from smallwit.report.html import write_report
from smallwit.report.table import print_summary, render_table

__all__ = ["print_summary", "render_table", "write_report"]
