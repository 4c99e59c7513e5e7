"""What is counted of a question: one outcome, when its answer or its error goes to the caller."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy, RetrieverUnavailable
from retriever.reasons import Code, Reason
from retriever.service.metrics import ServeMetrics
from retriever.service.service import Service
from retriever.settings import ServeSettings
from schemas.api import BatchQuery, RetrieveBatchRequest, RetrieveRequest, SimilarRequest, VectorsRequest
from schemas.canaries import CANARY_AUTHOR
from schemas.ids import PostId
from tests.kit.queue_work import Clock, run, until
from tests.kit.raw_clients import Gate
from tests.kit.retrievers import RetrieverSetup, Served, scored_post

LONG_MS: Final = 30_000
SHORT_MS: Final = 50
BATCH: Final = [BatchQuery(text="t"), BatchQuery(text="u")]

Call = Callable[[Service, int], Awaitable[object]]
"""With its timeout in milliseconds."""


def as_it_is(answer: Any) -> Any:
    return answer


def retrieve(service: Service, timeout_ms: int) -> Awaitable[object]:
    return service.retrieve(RetrieveRequest(text="t", timeout_ms=timeout_ms), as_it_is)


def similar(service: Service, timeout_ms: int) -> Awaitable[object]:
    return service.similar(SimilarRequest(post_ids=["a"], timeout_ms=timeout_ms), as_it_is)


def retrieve_batch(service: Service, timeout_ms: int) -> Awaitable[object]:
    return service.retrieve_batch(RetrieveBatchRequest(queries=BATCH, timeout_ms=timeout_ms), as_it_is)


def vectors(service: Service, timeout_ms: int) -> Awaitable[object]:
    return service.vectors(VectorsRequest(post_ids=["a"], timeout_ms=timeout_ms), as_it_is)


def post(service: Service, _: int) -> Awaitable[object]:
    return service.post(PostId("a"))


def look_for_canaries(service: Service, timeout_ms: int) -> Awaitable[object]:
    request = RetrieveRequest(text="a canary", only_authors=[CANARY_AUTHOR], timeout_ms=timeout_ms)
    return service.retrieve(request, as_it_is)


def look_for_canaries_in_a_batch(service: Service, timeout_ms: int) -> Awaitable[object]:
    queries = [BatchQuery(text="a canary", only_authors=[CANARY_AUTHOR])]
    return service.retrieve_batch(RetrieveBatchRequest(queries=queries, timeout_ms=timeout_ms), as_it_is)


CALLS: Final = [(retrieve, 1), (similar, 1), (retrieve_batch, 2), (vectors, 1), (post, 1)]
"""Each with how many questions it asks."""
calls = pytest.mark.parametrize(("call", "number"), CALLS)
of_the_monitor = pytest.mark.parametrize("call", [look_for_canaries, look_for_canaries_in_a_batch])


class Counted:
    """A service with one place, and what it counts."""

    def __init__(self) -> None:
        self.setup = RetrieverSetup()
        self.setup.in_cold(scored_post("a"), scored_post("b"))
        self.clock = Clock()
        self._metrics = ServeMetrics(self.setup.under_test, Served(self.setup).feed)
        settings = ServeSettings(in_flight=1, queue=0)
        self.service = Service(self.setup.under_test, self._metrics, settings, clock=self.clock)

    def samples(self) -> dict[str, float]:
        """By outcome where there is one, else by name."""
        families = text_string_to_metric_families(self._metrics.render().decode())
        found: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            if not sample.name.endswith("_created"):
                name = sample.labels.get("outcome", sample.name)
                found[name] = found.get(name, 0.0) + sample.value
        return found

    def outcomes(self) -> dict[str, float]:
        samples = self.samples()
        names = {
            **{outcome: outcome for outcome in ("whole", "partial", "unavailable", "failed")},
            "nearline_refused_requests_total": "refused",
            "nearline_late_requests_total": "late",
        }
        return {name: samples[key] for key, name in names.items() if samples.get(key)}

    def hold(self) -> Gate:
        """Whoever asks the retriever from now on waits for it."""
        gate = Gate(lambda: None)
        self.before_each(gate)
        return gate

    def fail(self, error: Exception) -> None:
        """From now on the retriever does."""

        def raise_it() -> None:
            raise error

        self.before_each(raise_it)

    def before_each(self, act: Callable[[], None]) -> None:
        for name in ("answer_batch", "vectors", "post"):
            setattr(self.setup.under_test, name, _after(act, getattr(self.setup.under_test, name)))

    async def until_idle(self) -> None:
        await until(lambda: self.samples()["nearline_requests_in_flight"] == 0)

    async def until_asked(self) -> None:
        await until(lambda: self.samples()["nearline_requests_in_flight"] == 1)


def _after(act: Callable[[], None], method: Callable[..., Any]) -> Callable[..., Any]:
    def acting(*arguments: Any, **named: Any) -> Any:
        act()
        return method(*arguments, **named)

    return acting


@pytest.fixture
def counted() -> Iterator[Counted]:
    counted = Counted()
    yield counted
    counted.service.close()
    counted.setup.close()


def ask(counted: Counted, call: Call) -> None:
    async def scenario() -> None:
        await call(counted.service, LONG_MS)

    run(scenario)


@calls
def test_an_answer_counts_for_each_of_its_questions(counted: Counted, call: Call, number: int) -> None:
    ask(counted, call)
    assert counted.outcomes() == {"whole": number}


@pytest.mark.parametrize(("call", "number"), CALLS[:-1])
def test_an_answer_that_may_be_outdated_counts_as_partial(counted: Counted, call: Call, number: int) -> None:
    counted.setup.feed_problem = Reason(Code.HOT_BEHIND, "the feed has not reached the end for 20 s")
    ask(counted, call)
    assert counted.outcomes() == {"partial": number}


@calls
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZeroDivisionError("a mistake of ours"), "failed"),
        (RetrieverUnavailable("no tier answers"), "unavailable"),
        (DeadlineExceeded("no time is left"), "late"),
        (RequestRefused("text: there is nothing to encode"), None),
    ],
    ids=["failed", "unavailable", "late", "refused for a wrong value"],
)
def test_an_error_counts_unless_the_request_was_wrong(
    counted: Counted, call: Call, number: int, error: Exception, outcome: str | None
) -> None:
    counted.fail(error)
    with pytest.raises(type(error)):
        ask(counted, call)
    assert counted.outcomes() == ({} if outcome is None else {outcome: number})


@pytest.mark.parametrize(("call", "number"), CALLS[:-1])
def test_a_late_question_counts_once_also_when_its_work_has_ended(counted: Counted, call: Call, number: int) -> None:
    gate = counted.hold()

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await call(counted.service, SHORT_MS)
        gate.open()
        await counted.until_idle()

    run(scenario)
    assert counted.outcomes() == {"late": number}


def test_the_steps_of_late_work_are_measured(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """They say why it is late."""
    answers = [counted.setup.ask(text="t")]
    gate = Gate(lambda _: answers)
    monkeypatch.setattr(counted.setup.under_test, "answer_batch", gate)

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await retrieve(counted.service, SHORT_MS)
        gate.open()
        await counted.until_idle()

    run(scenario)
    assert counted.samples()["nearline_retrieve_seconds_count"] > 0


@calls
def test_a_refused_question_counts_once(counted: Counted, call: Call, number: int) -> None:
    gate = counted.hold()

    async def scenario() -> None:
        inside = asyncio.ensure_future(retrieve(counted.service, LONG_MS))
        await counted.until_asked()
        with pytest.raises(RetrieverBusy):
            await call(counted.service, LONG_MS)
        with pytest.raises(RetrieverBusy):
            counted.service.check_room(None)
        gate.open()
        await inside

    run(scenario)
    assert counted.outcomes() == {"whole": 1, "refused": number + 1}, "one more for the request that was not read"


@of_the_monitor
def test_a_question_for_canaries_counts_as_nothing(counted: Counted, call: Call) -> None:
    ask(counted, call)
    for error in (ZeroDivisionError(), RetrieverUnavailable("no tier answers"), DeadlineExceeded("no time is left")):
        counted.fail(error)
        with pytest.raises(type(error)):
            ask(counted, call)
    assert counted.outcomes() == {}
    assert "nearline_retrieve_seconds_count" not in counted.samples(), "nor is it measured"


@pytest.mark.parametrize(("after_s", "outcomes"), [(10.0, {}), (29.96, {"late": 1})])
def test_a_client_that_goes_when_its_time_is_over_has_waited_in_vain(
    counted: Counted, after_s: float, outcomes: dict[str, float]
) -> None:
    """gRPC ends its call then, which may be a moment before our own clock says that it is late."""
    gate = counted.hold()

    async def scenario() -> None:
        asked = asyncio.ensure_future(retrieve(counted.service, LONG_MS))
        await counted.until_asked()
        counted.clock.now_s += after_s
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        gate.open()
        await counted.until_idle()

    run(scenario)
    assert counted.outcomes() == outcomes
