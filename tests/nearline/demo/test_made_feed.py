"""The made-up feed: its events are valid, and it has the published shapes that it claims."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nearline.demo.made_feed.feed import MadeFeed, make_feed, member_id, post_id
from nearline.demo.made_feed.sessions import ACTIONS
from nearline.demo.made_feed.shape import LANGUAGES, FeedSize, Flags, Ints
from nearline.demo.world_command import main
from schemas.events import Activity, Event, MemberUpdated, PostCreated, PostDeleted, event_time_us, parse_event
from schemas.times import to_micros

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
SIZE = FeedSize(posts=4_000, members=800, activity=80_000, days=14.0)
POSITIVE = ("click", "like", "comment", "share", "follow")


@pytest.fixture(scope="module")
def feed() -> MadeFeed:
    return make_feed(3, NOW, SIZE)


@pytest.fixture(scope="module")
def events(feed: MadeFeed) -> list[Event]:
    return [parse_event(line.encode()) for line in feed.lines()]


def code(action: str) -> int:
    return ACTIONS.index(action)


def is_positive(feed: MadeFeed) -> Flags:
    actions = feed.actions
    flags: Flags = np.isin(actions.action, [code(action) for action in POSITIVE]) | (actions.dwell_s >= 10)
    return flags


def positives_by_post(feed: MadeFeed) -> Ints:
    return np.bincount(feed.actions.post[is_positive(feed)], minlength=len(feed.posts))


def test_the_same_seed_gives_the_same_feed_and_another_seed_another_one() -> None:
    size = FeedSize(posts=60, members=20, activity=500, days=2.0)
    first, again, other = (list(make_feed(seed, NOW, size).lines()) for seed in (5, 5, 6))
    assert first == again != other


def test_a_feed_may_be_without_activity() -> None:
    lines = list(make_feed(1, NOW, FeedSize(posts=3, members=2, activity=0, days=1.0)).lines())
    assert sum("post.created" in line for line in lines) == 3
    assert not any("activity" in line for line in lines)


def test_events_are_in_the_order_of_their_times_and_end_now(events: list[Event]) -> None:
    times = [event_time_us(event) for event in events]
    assert times == sorted(times)
    assert to_micros(NOW - timedelta(hours=3)) < times[-1] <= to_micros(NOW)
    assert times[0] >= to_micros(NOW - timedelta(days=SIZE.days))


def test_there_are_about_as_many_events_as_asked_for(events: list[Event]) -> None:
    activity = sum(isinstance(event, Activity) for event in events)
    assert activity == pytest.approx(SIZE.activity, rel=0.15)
    assert sum(isinstance(event, PostCreated) for event in events) == SIZE.posts


def test_nobody_acts_on_a_post_that_is_not_there_or_is_its_own(events: list[Event]) -> None:
    authors: dict[str, str] = {}
    gone: set[str] = set()
    for event in events:
        if isinstance(event, PostCreated):
            authors[event.post_id] = event.author_id
        elif isinstance(event, PostDeleted):
            gone.add(event.post_id)
        elif isinstance(event, Activity):
            assert event.post_id not in gone
            assert authors[event.post_id] != event.member_id
    assert gone


def test_a_member_is_shown_a_post_once_and_only_acts_on_what_it_was_shown(feed: MadeFeed) -> None:
    actions = feed.actions
    keys = actions.member * len(feed.posts) + actions.post
    shown = keys[actions.action == code("impression")]
    assert len(np.unique(shown)) == len(shown)
    assert set(keys.tolist()) == set(shown.tolist())


def test_popularity_is_heavy_tailed_and_depends_on_quality_and_exposure(feed: MadeFeed) -> None:
    positives = positives_by_post(feed)
    shown = np.bincount(feed.actions.post[feed.actions.action == 0], minlength=len(feed.posts))
    best = np.sort(positives)[::-1]
    assert best[: len(best) // 100].sum() > 0.1 * best.sum(), "one post of a hundred has more than a tenth"
    assert np.median(positives) <= 1
    quality = feed.posts.quality
    assert 0.3 < np.corrcoef(quality, np.log1p(positives))[0, 1] < 0.8, "quality counts for something, not for all"
    # Of posts of about one quality those that were shown more early on are shown more later, too.
    early = feed.actions.at_s - feed.posts.created_s[feed.actions.post] < 6 * 3600
    acted_early = np.bincount(feed.actions.post[early & is_positive(feed)], minlength=len(feed.posts))
    shown_late = np.bincount(feed.actions.post[~early & (feed.actions.action == 0)], minlength=len(feed.posts))
    average = np.abs(quality) < 0.3
    assert shown_late[average & (acted_early > 1)].mean() > 1.5 * shown_late[average & (acted_early == 0)].mean()
    assert shown.max() > 10 * np.median(shown)


def test_higher_positions_are_reached_and_looked_at_more(feed: MadeFeed) -> None:
    actions, impression = feed.actions, feed.actions.action == code("impression")
    reached = np.bincount(actions.position[impression])
    assert (np.diff(reached) <= 0).all()
    # Of impressions of equal chances the higher position is acted on more.
    chances = feed.chance(actions.member, actions.post, actions.at_s)
    similar = (chances > 0.2) & (chances < 0.4)
    rates = [
        (similar & is_positive(feed) & at).sum() / (similar & impression & at).sum()
        for at in (actions.position == 0, actions.position >= 5)
    ]
    assert rates[0] > 1.3 * rates[1]


def test_dwells_are_log_normal_and_long_where_somebody_acted(feed: MadeFeed) -> None:
    dwell_s = feed.actions.dwell_s[feed.actions.action == code("dwell")]
    long = np.log(dwell_s[dwell_s > 10])
    assert np.exp(np.median(long)) == pytest.approx(25, rel=0.15)
    assert 0.5 < long.std() < 0.8
    assert (dwell_s < 10).sum() > len(dwell_s) / 10


def test_the_chance_is_how_often_members_act_on_what_they_look_at_first(feed: MadeFeed) -> None:
    """At the first position everybody looks."""
    actions = feed.actions
    first = actions.position == 0
    chances = feed.chance(actions.member, actions.post, actions.at_s)
    shown = first & (actions.action == code("impression"))
    acted = {*zip(actions.member[is_positive(feed)].tolist(), actions.post[is_positive(feed)].tolist(), strict=True)}
    for low, high in ((0.0, 0.1), (0.2, 0.4), (0.6, 0.8)):
        bin_ = shown & (chances >= low) & (chances < high)
        pairs = zip(actions.member[bin_].tolist(), actions.post[bin_].tolist(), strict=True)
        assert np.mean([pair in acted for pair in pairs]) == pytest.approx(chances[bin_].mean(), abs=0.05)


def test_interests_count_as_they_are_then(feed: MadeFeed) -> None:
    people = feed.people
    changing = np.flatnonzero(np.isfinite(people.changes_s) & (people.first_subjects[:, 0] >= 0))[:50]
    for member in changing:
        posts = np.flatnonzero(feed.posts.subject == people.final_subjects[member, 0])[:1]
        before, after = (feed.chance(np.array([member]), posts, people.changes_s[member] + s) for s in (-1.0, 1.0))
        is_new = people.final_subjects[member, 0] not in people.first_subjects[member]
        assert (after > 2 * before) == is_new


def test_there_are_members_of_every_kind(feed: MadeFeed, events: list[Event]) -> None:
    counts = np.bincount(feed.actions.member[is_positive(feed)], minlength=SIZE.members)
    assert min((counts == 0).sum(), ((counts > 0) & (counts < 5)).sum(), (counts >= 20).sum()) > 20
    profiles = Counter(event.member_id for event in events if isinstance(event, MemberUpdated))
    assert SIZE.members > len(profiles) > 0.85 * SIZE.members
    assert max(profiles.values()) == 2, "interests that have changed"
    assert ((feed.people.final_subjects[:, 1] >= 0).mean(), (counts == 0).mean()) > (0.3, 0.02)


def test_posts_are_in_three_languages_that_few_members_all_read(events: list[Event], feed: MadeFeed) -> None:
    languages = Counter(event.language for event in events if isinstance(event, PostCreated))
    assert set(languages) == set(LANGUAGES)
    assert min(languages.values()) > SIZE.posts / 20
    acted = is_positive(feed)
    read = feed.people.reads[feed.actions.member[acted], feed.posts.language[feed.actions.post[acted]]]
    assert read.mean() > 0.95


def test_members_act_more_on_posts_of_those_whom_they_follow(feed: MadeFeed) -> None:
    members, slots = np.nonzero(feed.people.follows >= 0)
    followed = {*zip(members.tolist(), feed.people.follows[members, slots].tolist(), strict=True)}
    shown = feed.actions.action == 0
    pairs = list(zip(feed.actions.member.tolist(), feed.posts.author[feed.actions.post].tolist(), strict=True))
    of_followed = np.array([pair in followed for pair in pairs])
    assert 0.05 < of_followed[shown].mean() < 0.7
    assert of_followed[is_positive(feed)].mean() > of_followed[shown].mean()


@pytest.fixture
def lines(tmp_path: Path) -> list[list[dict[str, str]]]:
    truth = tmp_path / "truth.json"
    arguments = ["--size", "medium", "--posts", "40", "--members", "12", "--activity", "200", "--truth", str(truth)]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    known = json.loads(truth.read_text())
    assert known["subject_of"].keys() == {post_id(number) for number in range(40)}
    assert known["interests"].keys() == {member_id(number) for number in range(12)}
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_the_command_writes_a_feed_and_the_truth(lines: list[dict[str, str]]) -> None:
    assert {"post.created", "member.updated", "activity"} <= {event["type"] for event in lines}
