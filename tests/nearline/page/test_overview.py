"""What the overview makes of what was seen."""

from pathlib import Path

import pytest

from nearline.ask.status import TiersSeen
from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.report import Report
from nearline.page.collector import Sources
from nearline.ports import free_ports
from schemas import topics
from schemas.generations import Canary
from schemas.ids import Generation
from streams.errors import KafkaUnavailable
from streams.generations.progress import Progress
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT, founded, two_live
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import make_topics, produce
from tests.kit.waiting import until
from tests.nearline.page.conftest import TIERS, PlayedActs, served_page, standing

AWAY = KafkaSettings(bootstrap_servers=NO_BROKER)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_freshness_that_cannot_be_measured_is_as_old_as_the_newest_success(tmp_path: Path) -> None:
    clock = Clock()
    with served_page(tmp_path, AWAY, PlayedActs(), free_ports(1)[0], state=founded, clock=clock) as page:
        page.collector.look()
        clock.now_s += 60.0
        assert page.overview()["freshness"]["p99_s"] == 2.5
        page.monitor.report = standing("encode", "a-1")
        said = page.overview()
        assert said["freshness"] == {
            "p50_s": 63.0,
            "p99_s": 63.0,
            "newest_age_s": 63.0,
            "hour": said["freshness"]["hour"],
        }
        assert (said["ready"], said["collected_age_s"]) == (False, 60.0)
        page.monitor.report = standing("encode", "b-2")
        assert page.overview()["freshness"]["p99_s"] == 2.5, "another generation holds up nobody"


def test_how_far_a_building_is_stays_while_nobody_can_say(tmp_path: Path) -> None:
    states = [Progress(30, 120, 45.0)]

    def progresses() -> dict[Generation, Progress | None]:
        if not states:
            raise KafkaUnavailable("the broker does not answer")
        return {Generation("b-2"): states[-1]}

    sources = Sources(lambda: TIERS, list, progresses)
    state = two_live("building", canary=Canary(Generation("b-2"), 0.05, AT))
    with served_page(tmp_path, AWAY, PlayedActs(), free_ports(1)[0], state=lambda: state, sources=sources) as page:
        for problems in ([], ["building: the broker does not answer"]):
            page.collector.look()
            said = page.overview()
            built = said["generations"][1]
            assert (built["share"], built["left_s"], built["canary_share"], built["place"]) == (
                0.25,
                45.0,
                0.05,
                "green",
            )
            assert (said["problems"], said["can_roll_back"]) == (problems, True)
            states.clear()


@pytest.mark.parametrize(
    ("tiers", "process", "names"),
    [
        (TIERS, "serve", []),
        (TIERS._replace(ready=False), "serve", ["NearlineAnswersPartial"]),
        (TIERS._replace(ready=None), "serve-1", ["NearlineRetrieverAway"]),
        (TIERS._replace(ready=None), "contexts-0", []),  # it runs elsewhere, and nobody knows
    ],
)
def test_a_retriever_that_cannot_answer_is_an_alert(
    tmp_path: Path, tiers: TiersSeen, process: str, names: list[str]
) -> None:
    sources = Sources(lambda: tiers, list, dict)
    with served_page(tmp_path, AWAY, PlayedActs(), free_ports(1)[0], state=founded, sources=sources) as page:
        page.monitor.report = Report(ready=True, broker_up=True, look_age_s=1.0, standing_still=[])
        page.monitor.processes = [ProcessSeen(process, 12, "running")]
        page.collector.look()
        said = page.overview()
        assert [alert["name"] for alert in said["alerts"]] == names
        assert said["ready"] is tiers.ready


@pytest.mark.broker
def test_lag_is_an_age_that_grows_while_the_broker_is_away(clean_topics: RunningBroker, tmp_path: Path) -> None:
    kafka, clock = make_topics(clean_topics), Clock()
    with served_page(tmp_path, kafka, PlayedActs(), free_ports(1)[0], state=lambda: None, clock=clock) as page:

        def answered() -> bool:
            page.look()
            return bool(page.overview()["report"]["broker_up"])

        until(answered, "the broker to answer", 60)
        produce(kafka, topics.POSTS, 0, 3)
        page.look()
        said = page.overview()
        stages = {stage["stage"]: stage for stage in said["stages"]}
        age_s = stages["contexts"]["oldest_age_s"]
        assert stages["contexts"]["lag"] == 3
        assert stages["trending"] == {**stages["trending"], "lag": 0, "oldest_age_s": None, "stands_still": False}
        assert said["history"]["series"]["oldest_age_s contexts"][-1] == pytest.approx(age_s, abs=0.1)
        assert said["history"]["series"]["oldest_age_s trending"][-1] == 0.0
        page.monitor.report = Report(ready=False, broker_up=False, look_age_s=500.0, standing_still=[])
        (contexts,) = (stage for stage in page.overview()["stages"] if stage["stage"] == "contexts")
        assert contexts["oldest_age_s"] == age_s + 500.0
