import random
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from msgspec import structs

from encoders.encoder import Encoder
from encoders.package.manifest import MeanForm, PromptForm
from schemas.contexts import MemberContext, PostContext
from schemas.ids import MemberId, Revision
from tests.kit.data.contexts import history_entry, member_context
from tests.kit.data.events import activity
from tests.kit.data.training_events import events, feed_of
from tests.kit.packages import make_tiny_package
from trainer.data.feed import Feed
from trainer.data.quantile_tables import fit_quantile_tables
from trainer.data.replay import replay_until
from trainer.evaluation.evaluation import Evaluation, Measured
from trainer.evaluation.package_vectors import MemberVectors, PackageVectors
from trainer.evaluation.popularity_correlation import popularity_correlations
from trainer.evaluation.task import evaluation_task


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events())


@pytest.fixture(scope="module")
def evaluation(feed: Feed) -> Evaluation:
    return Evaluation(feed, evaluation_task(feed, feed.cut(0.15)))


def recall(measured: Measured, k: str = "10", group: str = "protocol") -> float:
    return measured.result.groups[group].recall[k]


def test_words_in_common_beat_popularity_and_chance(evaluation: Evaluation) -> None:
    by_system = {(measured.result.system, measured.result.history): measured for measured in evaluation.baselines()}
    for name in ("tf-idf", "tf-idf titles", "bm25"):
        assert recall(by_system[name, "acted"]) > 0.45, name
    assert recall(by_system["random", "acted"]) < 0.3
    assert recall(by_system["popularity", "acted"]) < 0.3
    assert recall(by_system["random", "acted"], "2000") == 1.0


def test_a_package_is_measured_at_every_dimension_and_with_both_histories(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    package = make_tiny_package(tmp_path / "tiny", hidden=64, dimension=32)
    results = {
        (measured.result.history, measured.result.dimension): measured.result
        for measured in evaluation.package(package)
    }
    assert set(results) == {("acted", 64), ("acted", 32), ("wrote", 32)}
    assert [key for key, measured in results.items() if measured.is_main] == [("acted", 32), ("wrote", 32)]
    narrow = make_tiny_package(tmp_path / "narrow", hidden=64, dimension=64)
    (same,) = [measured.result for measured in evaluation.package(narrow) if measured.result.history == "acted"]
    assert same.groups == results["acted", 64].groups


def test_the_other_form_of_members_is_measured_too(tmp_path: Path, evaluation: Evaluation) -> None:
    """A package whose tokenizer knows the prompt's tokens, and one whose does not."""
    profile = make_tiny_package(tmp_path / "prompt", hidden=32, member_form=PromptForm())
    plain = make_tiny_package(tmp_path / "mean", hidden=32, member_form=MeanForm())
    for package, form, other in ((profile, "prompt", "mean"), (plain, "mean", "prompt")):
        both = list(evaluation.package(package, both_forms=True))
        main = {measured.result.history: measured for measured in both if measured.result.is_main}
        others = {measured.result.history: measured for measured in both if measured.result.form == other}
        assert {measured.result.form for measured in main.values()} == {form}
        assert {(measured.result.form, measured.result.is_main) for measured in others.values()} == {(other, False)}
        assert set(main) == set(others) == {"acted", "wrote"}
        assert main["wrote"].result.groups != others["wrote"].result.groups
    claimed = replace(profile, manifest=structs.replace(profile.manifest, member_form=MeanForm()))
    (*_, again, _) = evaluation.package(claimed, both_forms=True)
    assert again.result.groups == next(evaluation.package(profile)).result.groups


class Popular:
    """Vectors of posts whose score knows the number of likes, but not its size: every tenfold is as much again."""

    def posts(self, contexts: list[PostContext]) -> np.ndarray:
        vectors = np.zeros((len(contexts), 32), dtype=np.float32)
        vectors[:, 0] = [np.log10(1 + post.counts.get("like", 0)) / 10 for post in contexts]
        vectors[:, 1] = np.sqrt(1 - vectors[:, 0] ** 2)
        return vectors

    def members(self, contexts: list[MemberContext]) -> MemberVectors:
        return MemberVectors([[(np.eye(32, dtype=np.float32)[0], 1.0)] for _ in contexts])


def test_the_probe_correlates_counts_and_their_percentiles_with_scores(tmp_path: Path) -> None:
    rng = random.Random(0)
    recorded = []
    for event in events(200):
        if event["type"] == "post.created":
            at = datetime.fromisoformat(event["created_at"]) + timedelta(minutes=1)
            likes = rng.choice((0, 1, 2, 4, 8, 100))
            recorded += [event, *(activity(f"x{fan}", event["post_id"], "like", at=at) for fan in range(likes))]
    feed = feed_of(recorded)
    cut_us = feed.cut(0.15)
    counts = [row.state.counts.get("like", 0) for row in replay_until(feed, cut_us).posts.values()]
    tables = fit_quantile_tables(replay_until(feed, cut_us).posts.values())
    tiny = make_tiny_package(tmp_path / "tiny", hidden=32, dimension=32, layers=1)
    package = replace(tiny, manifest=structs.replace(tiny.manifest, quantiles=tables))
    (like,) = popularity_correlations(
        cast(Any, Popular()), package, feed, cut_us, [MemberContext(MemberId("m"), Revision(1), cut_us)]
    )
    assert (like.field, like.posts) == ("count.like", len(counts))
    assert like.raw == pytest.approx(np.corrcoef(counts, np.log10(1 + np.array(counts)))[0, 1], abs=1e-5)
    assert like.percentile is not None
    assert like.percentile > like.raw
    (bare,) = Evaluation(feed, evaluation_task(feed, cut_us)).popularity_correlations(tiny)
    assert bare.percentile is None, "the package has no table"
    assert abs(bare.raw) < 0.5


@pytest.mark.parametrize("form", [MeanForm(), PromptForm()])
def test_a_member_has_the_vector_that_the_encode_stage_gives_it(tmp_path: Path, form: MeanForm | PromptForm) -> None:
    """Also where there is only a profile, or a text that cannot be encoded."""
    package = make_tiny_package(tmp_path / "tiny", layers=1, member_form=form)
    contexts = [
        member_context(history_entry("bread"), history_entry("oven", "wrote"), headline="baker"),
        member_context(headline="baker", skills=["go"]),
        member_context(history_entry("bread"), history_entry("half \ud800"), headline="baker"),
        member_context(language="en"),
        member_context(history_entry("bread"), deleted=True),
    ]
    ours = PackageVectors(package, device="cpu").members(contexts).cut(package.dimension)
    for vector, outcome in zip(ours, Encoder.load(package.folder, device="cpu").encode_members(contexts), strict=True):
        if isinstance(outcome, np.ndarray):
            assert vector == pytest.approx(outcome, abs=1e-6)
        else:
            assert not vector.any()
    assert [bool(vector.any()) for vector in ours] == [True, True, False, False, False]


def test_groups_by_length_hold_every_member_with_a_target(evaluation: Evaluation) -> None:
    groups = next(evaluation.baselines()).result.groups
    assert sum(group.members for name, group in groups.items() if name != "protocol") == len(evaluation.task.targets)
