"""Sizes follow from measured figures; the page says what the code computes."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from nearline.cli import cli
from nearline.generations.room import Corpus, Model, cold_room
from nearline.sizing.figures import ALL, Figure
from nearline.sizing.limits import limits, next_limits
from nearline.sizing.page import PAGE, renewed
from nearline.sizing.sizes import Load, size
from schemas.ids import Generation
from streams.settings import KafkaSettings

ROOT: Final = Path(__file__).parent.parent.parent.parent
LOAD: Final = Load(100, 1_000_000)


def test_the_page_says_what_the_code_computes() -> None:
    """`python -m nearline.sizing.page` renews it."""
    assert PAGE.read_text() == renewed(PAGE.read_text())


@pytest.mark.parametrize("figure", ALL, ids=lambda figure: figure.what[:30])
def test_every_figure_stands_where_it_says(figure: Figure) -> None:
    text = " ".join((ROOT / figure.file).read_text().split())
    assert figure.quote in text
    if not figure.quote:
        assert figure.file == "nearline/sizing/figures.py", "a figure without a quote has no other place"
        assert "at its design" in figure.what


def test_workers_do_twice_their_load() -> None:
    """147 us an event are 6,803 events/s; 10,100 of them with as much to spare need 2.97 workers."""
    sizes = size(LOAD)
    assert sizes.contexts_workers == 3
    assert sizes.trending_workers == 3
    assert size(replace(LOAD, activity_per_post=0)).contexts_workers == 1


def test_a_post_is_published_again_when_a_count_enters_a_bucket() -> None:
    """90 views enter the buckets that start at 1, 2, 3, 5, 8, 12, 18, 27, 41 and 62; 10 likes the first five."""
    assert size(LOAD).post_contexts_per_s == 100 * (1 + 10 + 5)


def test_members_are_published_at_most_once_in_their_window() -> None:
    assert size(LOAD).member_contexts_per_s == 1_000
    assert size(replace(LOAD, members=100)).member_contexts_per_s == 10


def test_a_template_without_counts_encodes_each_post_once() -> None:
    sizes = size(replace(LOAD, counts_in_prompt=False))
    assert sizes.tokens_per_s == (100 + 1_000) * 63
    assert sizes.post_contexts_per_s == 1_600, "they are published all the same"


def test_a_gpu_is_one_worker_of_the_rate_that_was_given() -> None:
    assert size(replace(LOAD, tokens_per_s=163_800)).encode_workers == 2


def test_the_cold_tier_needs_what_a_build_asks_for() -> None:
    sizes = size(LOAD)
    model = Model(Generation("a-1"), 128, 0)
    empty, full = (cold_room(model, Corpus(128, posts, 0)).memory for posts in (0, sizes.points))
    assert sizes.cold_memory == full - empty
    assert sizes.cold_nodes == 16


def test_the_hot_tier_reaches_back_as_far_as_its_memory() -> None:
    wide, narrow = size(LOAD), size(replace(LOAD, hot_gb=1))
    assert (wide.hot_capacity, wide.hot_window_s) == (100 * 48 * 3600, 48 * 3600)
    assert narrow.hot_capacity == int(1e9 / (250 + 4 * 128))
    assert narrow.serve_memory < wide.serve_memory


def test_retrievers_follow_from_questions_and_one_more() -> None:
    assert size(LOAD).serve_processes is None
    assert size(replace(LOAD, questions_per_s=1_000, answers_per_s=400)).serve_processes == 6


def test_partitions_are_twice_the_workers_and_never_more_than_kafka_settings_take() -> None:
    sizes = size(LOAD)
    assert sizes.partitions is not None
    assert sizes.partitions >= 2 * sizes.encode_workers
    assert size(Load(10_000, 100_000_000)).partitions is None
    most = size(Load(6_000, 100_000)).partitions
    assert most == 1024
    KafkaSettings(partitions=most)


@pytest.mark.parametrize("field", ["posts_per_s", "members", "text_chars", "corpus_days", "dimension"])
def test_more_of_a_load_needs_no_less(field: str) -> None:
    less = size(LOAD)
    more = size(replace(LOAD, **{field: getattr(LOAD, field) * 3}))
    shrinks = {"hot_capacity", "hot_window_s"} if field in ("posts_per_s", "dimension") else set()
    for name, value in less._asdict().items():
        if isinstance(value, int | float) and name not in shrinks:
            assert more._asdict()[name] >= value, name


def test_a_limit_is_where_the_size_says_so() -> None:
    load = Load(1, 10**9)  # so many members that the window of none of them holds anything back
    by_what = {limit.what: limit.posts_per_s for limit in limits(load)}
    for what, workers in (
        ("one context worker", "contexts_workers"),
        ("one encode worker", "encode_workers"),
        ("one trending worker", "trending_workers"),
    ):
        below, above = (size(replace(load, posts_per_s=by_what[what] * share)) for share in (0.99, 1.01))
        assert (getattr(below, workers), getattr(above, workers)) == (1, 2)


def test_the_next_limits_are_those_up_to_ten_times_the_load() -> None:
    assert [limit.what for limit in next_limits(LOAD)] == ["the hot tier holds 48 h in 32 GB"]
    assert all(one.posts_per_s <= other.posts_per_s for one, other in pairwise(limits(LOAD)))
    assert all(100 < limit.posts_per_s <= 1000 for limit in next_limits(LOAD))


def test_the_command_prints_a_table_and_what_ends_first() -> None:
    done = CliRunner().invoke(cli, ["size", "--posts-per-s", "100", "--members", "1000000"])
    assert done.exit_code == 0, done.output
    assert "kafka.partitions" in done.output
    assert "at 243 posts/s: the hot tier holds 48 h in 32 GB" in done.output


def test_the_command_gives_scripts_one_object() -> None:
    words = ["size", "--posts-per-s", "1", "--members", "10", "--json", "--tokens-per-s", "1e6", "--no-counts"]
    done = CliRunner().invoke(cli, words)
    answer = json.loads(done.output)
    expected = size(Load(1, 10, tokens_per_s=1e6, counts_in_prompt=False))
    assert answer["partitions"] == expected.partitions == 4
    assert answer["next_limits"][0].keys() == {"posts_per_s", "what", "mend"}


def test_the_command_refuses_a_load_of_nothing() -> None:
    done = CliRunner().invoke(cli, ["size", "--posts-per-s", "0", "--members", "10"])
    assert done.exit_code != 0
