"""
EncoderError
├── PackageError       the model package cannot be used or written; no record is to blame
│   ├── BadPackage     nearline.json, a path, a file or a digest is wrong
│   ├── GoldenMismatch the model does not give the vectors that the package recorded
│   └── PackageExists  a package is never overwritten
├── BadText            a single text that was asked for can never be encoded
└── EncodingFailed     infrastructure: the device cannot run at all; leave the process

A record that can never be encoded raises nothing: an `Unencodable` stands in the place of its vector.
"""

from dataclasses import dataclass

from schemas.embeddings import Vector


class EncoderError(Exception):
    """Base of what this package raises. The message is one sentence."""


class PackageError(EncoderError):
    """Names the package and what to do."""


class BadPackage(PackageError):
    """The folder is not a valid model package."""


class GoldenMismatch(PackageError):
    """This machine would serve other vectors than the package recorded."""


class PackageExists(PackageError):
    """Something is already in the folder."""


class BadText(EncoderError):
    """The message is a cause as in `Unencodable`."""


class EncodingFailed(EncoderError):
    """The device failed, not a record."""


@dataclass(frozen=True, slots=True)
class Unencodable:
    """Stands in the place of a vector; `cause` is the sentence for the dead letter."""

    cause: str


Outcome = Vector | Unencodable | None
"""A vector, float32 (D,) of length one; or why there can be none; or None where the context is deleted or empty."""
