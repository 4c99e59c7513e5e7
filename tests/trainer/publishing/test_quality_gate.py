from pathlib import Path

import pytest
from msgspec.structs import replace

from encoders.package.manifest import BaseModel
from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from tests.kit.data.training_events import events, feed_of, invented_events
from tests.kit.packages import make_tiny_package
from trainer.data.feed import Feed
from trainer.errors import BadEvents, NotBetter
from trainer.evaluation.task import EvaluationTask, evaluation_task
from trainer.evaluation.untrained import untrained_start
from trainer.publishing import quality_gate
from trainer.publishing.quality_gate import compare


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """It knows nothing but which letters texts have in common."""
    return make_tiny_package(tmp_path_factory.mktemp("packages") / "letters", layers=1)


@pytest.fixture(scope="module")
def invented() -> Feed:
    return feed_of(invented_events(1_200))


def test_the_gate_refuses_what_is_not_better_and_says_both_figures(package: ModelPackage) -> None:
    with pytest.raises(NotBetter, match=r"Recall@100 is \d\.\d+ and that of tiny-.* better in 0% of the resamples"):
        compare(package, ModelPackage.load(package.folder), feed_of(events()))


def test_the_gate_lets_a_better_one_pass_and_says_against_what(package: ModelPackage, invented: Feed) -> None:
    verdict = compare(package, None, invented)
    assert verdict["against"] == "popularity"
    assert verdict["share_better"] >= 0.95
    assert verdict["recall"] > verdict["recall_before"]
    assert [rival["system"] for rival in verdict["rivals"]] == ["tf-idf", "bm25"]
    assert min(rival["share_better"] for rival in verdict["rivals"]) >= 0.95
    assert "only --baseline START measures what it was made from" in verdict["untrained_not_measured"]


def test_the_gate_refuses_what_words_in_common_find_too(package: ModelPackage) -> None:
    """It is better than popularity, but anybody has TF-IDF."""
    with pytest.raises(NotBetter, match=r"that of (tf-idf|bm25) is \d\.\d+: better in \d+% of the resamples"):
        compare(package, None, feed_of(events(1_200)))


def test_the_gate_refuses_what_is_not_better_than_a_folder(package: ModelPackage, invented: Feed) -> None:
    with pytest.raises(NotBetter, match=rf"that of {package.generation} is"):
        compare(package, None, invented, [package.folder])


def test_the_gate_refuses_what_is_not_better_than_its_untrained_start(
    package: ModelPackage, invented: Feed, tmp_path: Path
) -> None:
    """Of what was made from nothing and never trained the start is the same model."""
    manifest = replace(package.manifest, base_model=BaseModel("none"))
    of_nothing = ModelPackage(package.folder, manifest, package.digest)
    start = untrained_start(of_nothing, invented, invented.cut(0.15), tmp_path / "start")
    assert start is not None
    with pytest.raises(NotBetter, match=r"that of untrained is \d\.\d+: better in 0% of the resamples"):
        compare(start, None, invented)


def test_nobody_is_measured_on_what_a_named_package_has_learned(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The untrained start still has only the posts of the package's own training."""
    feed = feed_of(events())
    own_until, later_until = (to_rfc3339(feed.cut(holdout)) for holdout in (0.5, 0.15))
    began: list[Micros] = []
    monkeypatch.setattr(quality_gate, "untrained_start", lambda _package, _feed, cut_us, _folder: began.append(cut_us))
    cuts: list[Micros] = []

    def task(feed: Feed, cut_us: Micros) -> EvaluationTask:
        cuts.append(cut_us)
        return evaluation_task(feed, cut_us)

    monkeypatch.setattr(quality_gate, "evaluation_task", task)
    trained = make_tiny_package(tmp_path / "trained", layers=1, training={"until": own_until})
    baseline = make_tiny_package(tmp_path / "baseline", layers=1, training={"until": later_until})
    with pytest.raises(NotBetter):
        compare(trained, None, feed, [baseline.folder])
    assert (cuts, began) == ([from_rfc3339(later_until)], [from_rfc3339(own_until)])
    baseline = make_tiny_package(tmp_path / "newest", layers=1, training={"until": "2100-01-01T00:00:00Z"})
    with pytest.raises(BadEvents, match="no action is newer than 2100"):
        compare(trained, None, feed, [baseline.folder])
