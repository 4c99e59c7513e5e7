"""A partition in which nothing has changed is not read again."""

from schemas.ids import Millis, Offset, Partition
from streams.kafka.offsets import FirstRecord, OffsetReader, Offsets
from streams.kafka.records import Place
from streams.operate.known_records import KnownFirstRecords

A, B, C = (Place("t", Partition(number)) for number in range(3))
RECORD = FirstRecord(Offset(4), Millis(7))


class Reader(OffsetReader):
    """In the place of the broker: answers, and remembers for what it was asked."""

    def __init__(self) -> None:
        self.records: dict[Place, FirstRecord | None] = {A: RECORD, B: None}
        self.asked: list[Offsets] = []

    def first_records(self, offsets: Offsets, ends: Offsets, timeout_s: float) -> dict[Place, FirstRecord | None]:
        self.asked.append(offsets)
        return {place: record for place, record in self.records.items() if place in offsets}


def at(*offsets: int) -> Offsets:
    return {place: Offset(offset) for place, offset in zip((A, B, C), offsets, strict=True)}


def test_only_what_may_have_changed_is_read() -> None:
    reader, now_s = Reader(), 0.0
    known = KnownFirstRecords(reader, lambda: now_s)
    answers = [known.first_records(at(3, 5, 0), at(9, 9, 9), 1.0) for _ in range(2)]
    assert answers == [{A: RECORD, B: None}] * 2
    assert reader.asked == [at(3, 5, 0), {C: Offset(0)}], "C was not answered"
    known.first_records(at(3, 5, 0), at(10, 10, 9), 1.0)
    assert reader.asked[-1] == {B: Offset(5), C: Offset(0)}, "there may be a record at its new end"
    known.first_records(at(4, 5, 0), at(10, 10, 9), 1.0)
    assert reader.asked[-1] == {A: Offset(4), C: Offset(0)}, "another record is the first now"


def test_what_was_deleted_meanwhile_is_noticed_after_a_while() -> None:
    reader, now_s = Reader(), 0.0
    known = KnownFirstRecords(reader, lambda: now_s)
    known.first_records({A: Offset(3)}, {A: Offset(9)}, 1.0)
    reader.records[A] = None
    now_s = 29.0
    assert known.first_records({A: Offset(3)}, {A: Offset(9)}, 1.0) == {A: RECORD}
    now_s = 31.0
    assert known.first_records({A: Offset(3)}, {A: Offset(9)}, 1.0) == {A: None}
