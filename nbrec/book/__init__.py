"""What the chapters are made with: findings, tests of significance, figures and tables."""


class NoRecords(ValueError):
    """The records do not suffice for what was asked; the message says what is missing."""
