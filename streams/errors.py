"""
StreamsError
├── KafkaUnavailable   infrastructure: the broker cannot do it now; wait, or leave the process and be started again
├── KafkaRefused       the request can never succeed as it is: a missing topic, a denied right, a wrong setting
│   ├── TopicMismatch  a topic exists with another number of partitions than the settings say
│   └── LoginRefused       the broker and this client do not trust each other: a password, a certificate
├── Fenced             another worker has taken over; what this one still does must not count
├── RowsUnavailable    the files of the rows cannot be opened, written or compacted
│   └── RowsThrownAway damaged rows were removed; the next start restores them
├── ChangelogDamaged   a piece that cannot be read is in the changelog itself; no restoring mends that
├── OffsetsLost        rows are there and the group's offsets are not: counting on would count twice
├── TrendingStuck      Faust stands still, or has crashed without a reason; the next process goes on
├── BadFile            a file of events cannot be opened or read to its end
├── NotDelivered       the broker refused events that were sent to it for good
├── RetrieverSilent    the hot feed cannot be asked how far it is; it can pass
├── StillBehind        the time given to `wait` is over and something is not searchable yet
├── Stopped            a stop was asked for within a batch; nothing of it is committed, and it is done again
└── NoSuchDeadLetter   there is no dead letter with this id
"""


class StreamsError(Exception):
    """Base of what this package raises. The message is one sentence."""


class KafkaUnavailable(StreamsError):
    """The broker cannot do it now. It can pass."""


class KafkaRefused(StreamsError):
    """The broker says no, and will say no again. Names the topic or the setting."""


class TrendingStuck(StreamsError):
    """Says what Faust did not do."""


class TopicMismatch(KafkaRefused):
    """Names the topic and both numbers."""

    def __init__(self, topic: str, found: int, wanted: int) -> None:
        super().__init__(
            f"the topic {topic} has {found} partitions and kafka.partitions is {wanted}; set it to {found}, "
            "or use a broker without this topic"
        )


class LoginRefused(KafkaRefused):
    """Says why, as the client does. Names the setting."""


class Fenced(StreamsError):
    """This worker is a zombie. The only right thing is to leave."""


class RowsUnavailable(StreamsError):
    """Names the folder and the mend."""


class RowsThrownAway(RowsUnavailable):
    """Names the folder and the damage. Nothing is lost: the changelog is the truth."""


class ChangelogDamaged(StreamsError):
    """Names the changelog, its partition, the piece and the mend."""

    def __init__(self, topic: str, partition: int, cause: Exception) -> None:
        super().__init__(
            f"the changelog {topic}-{partition} itself has a piece that cannot be read ({cause}), so that restoring "
            "the rows brings it back; start the version of nearline that wrote it, or bring the topic back from a copy"
        )


class OffsetsLost(StreamsError):
    """Names the group and the command that mends it."""


class BadFile(StreamsError):
    """Names the file and why."""


class NotDelivered(StreamsError):
    """Says how many, and the first reason."""


class RetrieverSilent(StreamsError):
    """The retriever does not answer now."""


class StillBehind(StreamsError):
    """Says which stage, on which topic, and by how much."""


class NoSuchDeadLetter(StreamsError):
    """Names the id."""


class Stopped(StreamsError):
    """Not a failure: the process leaves because it was asked to."""
