"""
SchemaError
├── BadRecord   the record can never succeed: it becomes a dead letter, with this sentence as its cause
│   └── NotJson  its body is no JSON at all
└── NewerForm   something was stored by a newer version, in a form that this one does not read; nothing was changed
"""


class SchemaError(Exception):
    """Base of what this package raises."""


class BadRecord(SchemaError):
    """The record is wrong. The message is one sentence that names the field and the mend."""


class NotJson(BadRecord):
    """The record's body cannot be read as JSON."""


class NewerForm(SchemaError):
    """Names where it lies, what it is and the mend."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"{where} has {what}; nothing was changed: start the version of nearline that wrote it, or a newer one"
        )
