"""
ContextsError
└── DamagedRow   a piece of a stored row is missing: the rows must be restored from their changelog
"""


class ContextsError(Exception):
    """Base of what this package raises."""


class DamagedRow(ContextsError):
    """Names the entity and the mend."""
