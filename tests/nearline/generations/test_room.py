"""What another generation needs, in numbers, and the sentence where there is less."""

import pytest

from nearline.errors import NoRoom
from nearline.generations.room import (
    Corpus,
    Free,
    Model,
    Room,
    cold_room,
    encode_room,
    log_room,
    refuse_without_room,
    serve_room,
    together,
)
from schemas.ids import Generation

B = Generation("b-2")
MODEL = Model(B, 256, 100_000_000)
CORPUS = Corpus(128, 1_000_000, 500_000, cold_bytes=3_000_000_000, log_bytes=1_000_000_000)
GB = 1_000_000_000


def test_the_weights_are_in_memory_or_on_the_gpu() -> None:
    on_cpu, on_gpu = encode_room(MODEL, None), encode_room(MODEL, "cuda:1")
    assert on_cpu.memory - on_gpu.memory == MODEL.weights_bytes
    assert (on_cpu.gpus, on_gpu.gpus) == ({}, {"cuda:1": MODEL.weights_bytes})


def test_files_grow_with_the_dimension() -> None:
    assert (cold_room(MODEL, CORPUS).disk, log_room(MODEL, CORPUS).disk) == (6 * GB, 2 * GB)


def test_the_embedded_cold_tier_keeps_a_part_of_every_point_in_memory() -> None:
    nothing = cold_room(MODEL, CORPUS._replace(posts=None, members=None))
    assert cold_room(MODEL, CORPUS).memory - nothing.memory == 1_500_000 * (250 + 640)


@pytest.mark.parametrize(("posts", "held"), [(1_000_000, 200_000), (1_000, 1_000), (None, 200_000)])
def test_a_hot_tier_holds_the_posts_that_there_are_or_as_many_as_it_may(posts: int | None, held: int) -> None:
    corpus = CORPUS._replace(posts=posts)
    room = serve_room(MODEL, corpus, capacity=200_000, snapshots=True, encode_gpu=None, hot_gpu=None)
    hot = held * (4 * 256 + 250)
    assert room == Room(MODEL.weights_bytes + hot, 2 * hot)


def test_a_hot_tier_on_a_gpu_leaves_only_its_columns_in_memory() -> None:
    corpus = CORPUS._replace(posts=1_000)
    room = serve_room(MODEL, corpus, capacity=9_999, snapshots=False, encode_gpu="cuda:0", hot_gpu="cuda:0")
    assert room == Room(250_000, 0, {"cuda:0": 1_000 * (4 * 256 + 17) + MODEL.weights_bytes})


def test_what_several_need_is_added_and_what_becomes_free_taken_off() -> None:
    sum_ = together([Room(3, 4, {"cuda:0": 5}), Room(10, 0, {"cuda:0": 1, "cuda:1": 2})])
    assert sum_ == Room(13, 4, {"cuda:0": 6, "cuda:1": 2})
    assert sum_.without(Room(3, 5, {"cuda:0": 2})) == Room(10, 0, {"cuda:0": 4, "cuda:1": 2})


def free(memory: int, disk: int, gpu: int) -> Free:
    return Free(lambda: memory, lambda: disk, lambda _: gpu)


def test_all_that_is_missing_is_one_sentence_with_the_mend() -> None:
    needed = Room(5_200_000_000, 700_000_000, {"cuda:0": 3 * GB})
    with pytest.raises(NoRoom) as refused:
        refuse_without_room(B, "its processes need", needed, free(3_100_000_000, 699_000_000, 3 * GB), "make room")
    assert str(refused.value) == (
        "this machine has no room for the generation b-2: its processes need about 5.2 GB of memory, of which 3.1 GB "
        "are free and 2.1 GB are missing, and 700 MB of disk, of which 699 MB are free and 1 MB are missing; make room"
    )
    with pytest.raises(NoRoom, match=r"3\.0 GB of the memory of cuda:0, of which 1\.0 GB are free and 2\.0 GB are"):
        refuse_without_room(B, "this process needs", needed, free(9 * GB, 9 * GB, GB), "make room")


def test_what_fits_is_not_refused_and_what_is_not_needed_not_looked_at() -> None:
    refuse_without_room(B, "", Room(1, 1, {"cuda:0": 1}), free(1, 1, 1), "")

    def never(*_: object) -> int:
        raise AssertionError("asked for")

    refuse_without_room(B, "", Room(gpus={"cuda:0": 0}), Free(never, never, never), "")
