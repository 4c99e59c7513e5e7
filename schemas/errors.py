"""
SchemaError
└── BadRecord   the record can never succeed: it becomes a dead letter, with this sentence as its cause
"""


class SchemaError(Exception):
    """Base of what this package raises."""


class BadRecord(SchemaError):
    """The record is wrong. The message is one sentence that names the field and the mend."""
