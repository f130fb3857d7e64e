"""smallwit: make small language models reason, by one recipe, one loss and one protocol."""

__version__ = "0.1.0"
