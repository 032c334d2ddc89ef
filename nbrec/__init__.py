"""nbrec: the models, metrics and protocol behind an executable book on next-best-item recommendation."""

__version__ = "0.1.0"
