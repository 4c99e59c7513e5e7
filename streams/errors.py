"""
StreamsError
├── KafkaUnavailable   infrastructure: the broker cannot do it now; wait, or end the process and be started again
├── KafkaRefused       the request can never succeed as it is: a missing topic, a missing right, a wrong setting
│   ├── TopicMismatch  a topic exists with another number of partitions than the settings say
│   ├── FixedTopicMismatch  a topic exists with another number of partitions than it must always have
│   └── LoginRefused   the broker refuses the login, or one side does not trust the other's certificate
├── Fenced             another worker has taken over; nothing that this one still does may count
├── RowsUnavailable    the files of the rows cannot be opened, written or compacted
│   └── RowsThrownAway damaged rows were removed; the next start restores them
├── ChangelogDamaged   the changelog itself holds a piece that cannot be read, so restoring does not help
├── OffsetsLost        there are rows but no offsets of the group: going on would count events twice
├── TrendingStuck      Faust stands still, or has crashed without a reason; the next process goes on
├── BadFile            a file of events cannot be opened or read to its end
├── NotDelivered       the broker has finally refused some of the events
├── RetrieverSilent    the hot feed cannot be asked how far it is; this can pass
├── StillBehind        the time given to `wait` is over, and something is not searchable yet
├── Stopped            a stop was requested within a batch; nothing of it is committed, so it will be done again
├── NoSuchDeadLetter   there is no dead letter with this id
├── GenerationsDamaged the records of the generations cannot be read, or contradict one another
├── ActRefused         an act on generations does not fit their state
├── TooLittleLeft      retention has deleted events that a rebuild needs
└── StillFed           a process works for what was retired, so nothing of it can be removed yet
"""

from collections.abc import Sequence


class StreamsError(Exception):
    """Base of what this package raises. The message is one sentence."""


class KafkaUnavailable(StreamsError):
    """The broker cannot do it now. This can pass."""


class KafkaRefused(StreamsError):
    """The broker refuses, and would refuse again. Names the topic or the setting."""


class TrendingStuck(StreamsError):
    """Says what Faust did not do."""


class TopicMismatch(KafkaRefused):
    """Names the topic and both numbers."""

    def __init__(self, topic: str, num_partitions: int, setting: int) -> None:
        super().__init__(
            f"the topic {topic} has {num_partitions} partitions and kafka.partitions is {setting}; set it to "
            f"{num_partitions}, or use a broker without this topic"
        )


class FixedTopicMismatch(KafkaRefused):
    """Names the topic and both numbers."""

    def __init__(self, topic: str, num_partitions: int, needed: int) -> None:
        super().__init__(
            f"the topic {topic} has {num_partitions} partitions and must have {needed}; another program has made it: "
            "delete it, or use a broker without this topic"
        )


class LoginRefused(KafkaRefused):
    """Gives the client's reason. Names the setting."""


class Fenced(StreamsError):
    """Another worker has this one's partitions, so the process must end."""


class RowsUnavailable(StreamsError):
    """Names the folder and the mend."""


class RowsThrownAway(RowsUnavailable):
    """Names the folder and the damage. Nothing is lost: the changelog has all rows."""


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
    """Says how many events, and the first reason."""


class RetrieverSilent(StreamsError):
    """The retriever does not answer now."""


class StillBehind(StreamsError):
    """Says which stage, on which topic, and by how much."""


class NoSuchDeadLetter(StreamsError):
    """Names the id."""


class Stopped(StreamsError):
    """Not a failure: the process ends because it was asked to."""


class GenerationsDamaged(StreamsError):
    """Names the record's offset and the mend."""


class ActRefused(StreamsError):
    """Names the generation, why, and what to do instead."""


class TooLittleLeft(StreamsError):
    """Names the topics and the mend."""


class StillFed(StreamsError):
    """Names what is retired, what is still in use, and the mend."""

    def __init__(self, retired: str, in_use: Sequence[str], after_s: float, again: str) -> None:
        """`again` is the command to run again."""
        super().__init__(
            f"a process still works for the retired {retired} after {after_s:.0f} s, and uses "
            f"{' and '.join(in_use)}; stop the process if it is not of this version, and run the command again: "
            f"{again}"
        )

    @classmethod
    def of_generation(cls, generation: str, in_use: Sequence[str], after_s: float) -> "StillFed":
        return cls(f"generation {generation}", in_use, after_s, f"nearline generations retire {generation}")
