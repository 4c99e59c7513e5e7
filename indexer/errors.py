"""
IndexerError
├── TierUnavailable   infrastructure: the tier cannot answer now; wait and try again, never a dead letter
│   └── TierLate      it did not answer within the time that the caller gave it; it may be well and only slow
├── TierRefused       the request can never succeed, such as a vector of a wrong dimension
├── SnapshotRefused   a snapshot on disk is damaged or not of this tier; delete it and read the topic
│   └── SnapshotOfNewerForm  a newer version wrote it; leave it there and read the topic
└── NoSuchDevice      the settings name a GPU that this machine does not have
"""


class IndexerError(Exception):
    """The base class of the errors of this package."""


class TierUnavailable(IndexerError):
    """The tier cannot answer now. Try again."""


class TierLate(TierUnavailable):
    """The tier did not answer within `timeout_s`."""


class TierRefused(IndexerError):
    """The tier will never accept this. Its one sentence says what is wrong and what to do."""


class SnapshotRefused(IndexerError):
    """The snapshot cannot be used. Its sentence says why."""


class SnapshotOfNewerForm(SnapshotRefused):
    """Its sentence names both forms."""


class NoSuchDevice(IndexerError):
    """Its sentence names the setting, the device and what to do."""
