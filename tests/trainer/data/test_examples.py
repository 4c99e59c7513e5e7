"""A member and a post as they were just before an action."""

from datetime import timedelta
from typing import Any

import pytest

from schemas.ids import Micros
from schemas.times import to_micros
from tests.kit.data.events import activity, member_deleted, member_updated, post_created, post_deleted, post_updated
from tests.kit.data.training_events import START, events, feed_of
from trainer.data.dataset import TrainingData, training_data
from trainer.data.examples import Example, Examples

FOREVER = Micros(2**60)
OTHERS = [
    event
    for member in ("x", "y")
    for number in range(2)
    for event in (
        post_created(f"{member}{number}", author_id="a", at=START),
        activity(member, f"{member}{number}", at=START + timedelta(seconds=5 + number)),
    )
]
"""Two members with two actions each, the least that anything is learned from."""


def hours(number: float) -> Any:
    return START + timedelta(hours=number)


def post(post_id: str, hour: float = 1, author: str = "a") -> dict[str, Any]:
    return post_created(post_id, f"text of {post_id}", author_id=author, at=hours(hour))


def act(post_id: str, hour: float, member: str = "m", action: str = "like") -> dict[str, Any]:
    return activity(member, post_id, action, at=hours(hour))


def data_of(*recorded: dict[str, Any], cut_us: Micros = FOREVER, negatives: int = 2) -> TrainingData:
    return training_data(feed_of([*OTHERS, *recorded]), cut_us, example_negatives=negatives)


def examples_of(*recorded: dict[str, Any], cut_us: Micros = FOREVER) -> tuple[Examples, list[Example]]:
    """Those of the member m."""
    examples = data_of(*recorded, cut_us=cut_us).examples
    assert examples is not None
    return examples, [example for example in examples.examples if example.member.member_id == "m"]


def test_neither_side_holds_the_action() -> None:
    profile = member_updated("m", headline="baker", at=hours(0.5))
    examples, (first, second) = examples_of(
        profile, post("p"), post("q"), act("p", 2, "x"), act("p", 3), act("q", 4), act("p", 5, "y")
    )
    assert first.context.counts == {"like": 1}, "the like of x, and not that of m"
    assert [entry.post_id for entry in examples.member_context(first).history] == []
    assert [entry.post_id for entry in examples.member_context(second).history] == ["p"]
    assert examples.member_context(second).as_of_us == to_micros(hours(3))
    assert second.context.counts == {}


def test_what_comes_later_changes_no_example() -> None:
    recorded = [
        *events(80),
        *(member_updated(f"m{number}", headline=f"h{number}", at=START) for number in range(0, 24, 2)),
        *(activity(f"m{number % 24}", f"p{number}", "impression", at=hours(number + 0.05)) for number in range(80)),
    ]
    feed = feed_of(recorded)
    whole = training_data(feed, FOREVER, example_negatives=2).examples
    assert whole is not None
    for example in whole.examples[60::10]:
        upto = training_data(feed, Micros(example.at_us + 1), example_negatives=2).examples
        assert upto is not None
        last = upto.examples[-1]
        assert (last.at_us, last.context) == (example.at_us, example.context)
        assert upto.member_context(last) == whole.member_context(example)


def test_each_post_is_an_example_once_and_the_members_own_are_none() -> None:
    _, found = examples_of(
        *(post("p"), post("own", author="m"), post("q")),
        *(act("q", 2), act("p", 3), act("own", 4), act("p", 5, action="share")),
    )
    assert [example.context.post_id for example in found] == ["q", "p"]


def test_the_post_is_as_it_was_then() -> None:
    created = post("p")
    edited = post_updated(created, "new words", at=hours(5))
    profile = member_updated("m", headline="baker", at=hours(0.5))
    examples, (before,) = examples_of(profile, created, act("p", 2), edited)
    assert before.context.text == "text of p"
    number = before.post
    assert examples.post_contexts[number].text == "new words"


def test_what_was_shown_before_and_never_acted_on_is_a_negative() -> None:
    profile = member_updated("m", headline="baker", at=hours(0.5))
    shown = [act(name, 2 + number / 10, action="impression") for number, name in enumerate("qrs")]
    data = data_of(profile, *map(post, "pqrst"), *shown, act("p", 3), act("t", 4, action="impression"), act("q", 5))
    assert data.examples is not None
    example = next(example for example in data.examples.examples if example.context.post_id == "p")
    assert [context.post_id for _, context in example.shown] == ["s", "r"], "q was acted on later, t was shown later"
    assert [data.texts[number] for number, _ in example.shown] == ["text of s", "text of r"]


def test_what_is_held_out_makes_no_difference_to_negatives() -> None:
    profile = member_updated("m", headline="baker", at=hours(0.5))
    recorded = [profile, post("p"), post("q"), act("q", 2, action="impression"), act("p", 3)]
    cut_us = to_micros(hours(4))
    _, (without,) = examples_of(*recorded, cut_us=cut_us)
    _, (held_out,) = examples_of(*recorded, act("q", 5), cut_us=cut_us)
    assert [context.post_id for _, context in without.shown] == ["q"]
    assert held_out.shown == without.shown


def test_nothing_deleted_is_learned_from() -> None:
    profile = member_updated("m", headline="secret", at=hours(0.5))
    recorded = [profile, post("p"), post("q"), act("p", 2), act("q", 3)]
    examples, (second,) = examples_of(*recorded, post_deleted("p", at=hours(4)))
    assert second.context.post_id == "q"
    assert examples.member_context(second).history == [], "it held p"
    gone = member_deleted("m", at=hours(4))
    examples, found = examples_of(*recorded, gone)
    assert (found, examples.profiles) == ([], [])
    back = member_updated("m", headline="back", at=hours(5))
    examples, (returned,) = examples_of(*recorded, gone, back, post("r", 6), act("r", 7))
    assert returned.context.post_id == "r"
    assert examples.profiles == ["back"]


def test_without_templates_no_examples_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.dataset.find_examples", lambda *_: 1 / 0)
    assert training_data(feed_of(events(40)), FOREVER).examples is None
