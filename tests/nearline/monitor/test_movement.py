"""What looks at the broker show: who commits nothing, and for how long a record has waited at least."""

from nearline.monitor.movement import Movement, Still
from schemas import stages, topics
from schemas.ids import Millis, Offset, Partition
from schemas.stages import StageReads
from streams.kafka.records import Place
from streams.operate.lag import PartitionLag, StageLag
from tests.kit.data.embeddings import GENERATION

CONTEXTS = stages.CONTEXTS
POSTS, MEMBERS = Place(topics.POSTS, Partition(0)), Place(topics.MEMBERS, Partition(0))


def look(reads: StageReads = CONTEXTS, **places: tuple[int, int]) -> list[StageLag]:
    """By topic: where the group goes on, and the end."""
    partitions = {
        Place(topic.replace("_", "-"), Partition(0)): PartitionLag(
            Offset(done), Offset(end), end - done, Millis(1) if end > done else None
        )
        for topic, (done, end) in places.items()
    }
    return [StageLag(reads, partitions, {})]


def test_who_commits_nothing_is_seen_from_the_first_look_on_at_which_something_waited() -> None:
    movement = Movement()
    movement.look(1.0, look(posts=(5, 5)))
    assert movement.still("contexts") is None
    for at_s, end in ((2.0, 8), (3.0, 9), (4.0, 20)):
        movement.look(at_s, look(posts=(5, end)))
    assert movement.still("contexts") == Still(2.0, 3)
    movement.look(5.0, look(posts=(20, 20)))
    assert movement.still("contexts") is None


def test_who_moves_but_never_reaches_the_end_does_not_stand_still() -> None:
    movement = Movement()
    for number in range(20):
        movement.look(float(number), look(posts=(number, 100)))
    assert movement.still("contexts") == Still(19.0, 81), "since the last look, at which it had moved"


def test_one_topic_that_stands_still_is_seen_beside_another_that_moves() -> None:
    movement = Movement()
    for number in range(10):
        movement.look(float(number), look(posts=(number, 100), members=(0, 1)))
    assert movement.still("contexts") == Still(0.0, 101)


def test_requests_to_process_again_are_the_last_that_a_stage_does() -> None:
    reads = stages.encode_reads(GENERATION)
    replays = topics.replay_requests("encode", "post", GENERATION)
    movement = Movement()
    for at_s in (1.0, 2.0):
        movement.look(
            at_s, [StageLag(reads, {Place(replays, Partition(0)): PartitionLag(Offset(0), Offset(2), 2, None)}, {})]
        )
    assert movement.still(reads.group) is None


def test_an_outage_is_nobodys_fault() -> None:
    movement = Movement()
    movement.look(1.0, look(posts=(5, 8)))
    movement.interrupted()
    movement.look(100.0, look(posts=(5, 8)))
    assert movement.still("contexts") == Still(100.0, 3)
    assert movement.waits_since("contexts") == {POSTS: 1.0}, "the record has waited all the time"


def test_a_record_has_waited_at_least_since_a_look_that_saw_it() -> None:
    movement = Movement()
    movement.look(1.0, look(posts=(5, 8), members=(0, 0)))
    movement.look(2.0, look(posts=(6, 8), members=(0, 1)))
    assert movement.waits_since("contexts") == {POSTS: 1.0, MEMBERS: 2.0}
    movement.look(3.0, look(posts=(8, 9), members=(0, 1)))
    assert movement.waits_since("contexts") == {POSTS: 3.0, MEMBERS: 2.0}


def test_what_is_gone_is_forgotten() -> None:
    movement = Movement()
    movement.look(1.0, look(posts=(5, 8)))
    movement.look(2.0, [])
    assert movement.still("contexts") is None
    assert movement.waits_since("contexts") == {}
