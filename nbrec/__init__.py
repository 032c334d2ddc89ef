"""The models, metrics and protocol behind a book on next-best-item recommendation."""

__version__ = "0.1.0"
