"""Turns of another process on the same device: who sees them, and that nobody waits."""

import fcntl
from pathlib import Path
from typing import Any

from encoders.errors import Outcome
from nearline.up.device_turns import DeviceTurns, SharedDevice
from tests.kit.data.contexts import post_context
from tests.kit.encoders import HashEncoder
from tests.kit.running import child

HOLDER = "tests.kit.children.device_turn"


def test_a_turn_of_another_process_is_seen_on_its_device_until_it_dies(tmp_path: Path) -> None:
    turns, other_device = DeviceTurns(tmp_path, "cuda:0"), DeviceTurns(tmp_path, "cuda:1")
    assert not turns.is_taken()
    with child(HOLDER, str(tmp_path), "cuda:0") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has a turn\n"
        assert turns.is_taken()
        assert not other_device.is_taken()
        holder.kill()
        holder.wait(60)
        assert not turns.is_taken()


def test_several_turns_at_once_are_seen_until_the_last_one_ends(tmp_path: Path) -> None:
    turns = DeviceTurns(tmp_path, "cuda:0")
    with turns.turn():
        with turns.turn():
            assert turns.is_taken()
        assert turns.is_taken()
    assert not turns.is_taken()


def test_a_turn_waits_for_nobody_who_looks(tmp_path: Path) -> None:
    """Even one that stands still while it looks."""
    turns = DeviceTurns(tmp_path, "cuda:0")
    with (tmp_path / "devices" / "cuda:0").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        with turns.turn():
            pass
    assert not turns.is_taken()


def test_only_the_turns_of_who_goes_first_are_seen(tmp_path: Path) -> None:
    turns, goes_first, seen = DeviceTurns(tmp_path, "cuda:0"), [True, False], list[bool]()

    class Encoder(HashEncoder):
        def run(self, prepared: Any) -> list[Outcome]:
            seen.append(turns.is_taken())
            return super().run(prepared)

    shared = SharedDevice(Encoder(), turns, goes_first.pop)
    for _ in range(2):
        (vector,) = shared.run(shared.prepare_posts([post_context()]))
        assert vector is not None
    assert seen == [False, True]
