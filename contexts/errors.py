"""
ContextsError
└── DamagedRow   a piece of a stored row is missing or cannot be read: restore the rows from their changelog
"""


class ContextsError(Exception):
    """Base of what this package raises."""


class DamagedRow(ContextsError):
    """Names the entity."""
