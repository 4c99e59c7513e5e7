"""
SchemaError
└── BadRecord   the record can never succeed: it becomes a dead letter, with this sentence as its cause
    └── NotJson  its body is no JSON at all
"""


class SchemaError(Exception):
    """Base of what this package raises."""


class BadRecord(SchemaError):
    """The record is wrong. The message is one sentence that names the field and the mend."""


class NotJson(BadRecord):
    """The record's body cannot be read as JSON."""
