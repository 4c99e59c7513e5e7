"""
ContextsError
└── DamagedRow   a piece of a stored row is missing or cannot be read: restore the rows from their changelog
"""


class ContextsError(Exception):
    """The base of all errors that this package raises."""


class DamagedRow(ContextsError):
    """The text names the entity."""
