"""
EncoderError
├── PackageError       the model package cannot be used or written; no record is to blame
│   ├── BadPackage     nearline.json, a path, a file or a digest is wrong
│   ├── GoldenMismatch the model does not give the vectors that the package recorded
│   └── PackageExists  a package is never overwritten
├── BadText            a single text that was asked for can never be encoded
└── EncodingFailed     infrastructure: the device cannot run at all; leave the process
    └── DeviceFull     others hold the device's memory now; try again later

A record that can never be encoded raises nothing: an `Unencodable` stands in the place of its vector.
"""

from dataclasses import dataclass
from typing import NamedTuple

from schemas.embeddings import Interest, Vector


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


class DeviceFull(EncodingFailed):
    """The same text may fit in a moment."""


@dataclass(frozen=True, slots=True)
class Unencodable:
    """Stands in the place of a vector; `cause` is the sentence for the dead letter."""

    cause: str


class SeveralVectors(NamedTuple):
    """Of a member with several interests."""

    vector_D: Vector
    """Its one vector, for whoever takes only one."""
    interests: list[Interest]


Outcome = Vector | SeveralVectors | Unencodable | None
"""A vector, float32 (D,) of length one; of some members several; or why there can be none; or None where the context is
deleted or empty."""


def one_vector(outcome: Outcome) -> Vector | Unencodable | None:
    return outcome.vector_D if isinstance(outcome, SeveralVectors) else outcome
