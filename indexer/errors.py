"""
IndexerError
├── TierUnavailable   infrastructure: the tier cannot answer now; wait and try again, never a dead letter
├── TierRefused       the request can never succeed: a wrong dimension, a collection of another generation
└── NoSuchDevice      this machine has no such GPU
"""


class IndexerError(Exception):
    """Base of what this package raises."""


class TierUnavailable(IndexerError):
    """The tier cannot answer now. Try again."""


class TierRefused(IndexerError):
    """The tier will never take this. One sentence that says what is wrong and what to do."""


class NoSuchDevice(IndexerError):
    """Names the setting, the device and the mend."""
