"""The operators' page of the running instance, in a real browser: every panel shows what the instance says."""

import re
from collections.abc import Callable, Iterator

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from nearline.pipeline import Pipeline
from schemas import topics
from schemas.api import RetrieveRequest
from streams.settings import KafkaSettings
from tests.kit.browser import opened, running_browser
from tests.kit.data.events import post_created, post_deleted
from tests.kit.kafka.topics import Sender
from tests.kit.programs import needs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600), needs("chromium")]

SLOW_MS = 120_000
"""On a busy machine."""
WORDS = "flour and yeast"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(pipeline: Pipeline, browser: Browser) -> Iterator[Page]:
    expect.set_options(timeout=SLOW_MS)
    pipeline.wait()
    monitor = pipeline.instance.monitor
    assert monitor is not None
    with opened(browser, monitor) as page:
        expect(page.locator("#state")).to_have_text("Ready")
        yield page


def cells(page: Page, table: str, row: str) -> list[str]:
    """The texts of the row whose first cell begins so."""
    found = page.locator(f"#{table} tbody tr").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{row}")))
    return found.locator("th, td").all_inner_texts()


def test_every_panel_shows_what_the_instance_says(page: Page, pipeline: Pipeline, unique: Callable[[str], str]) -> None:
    # What was counted before the page was asked for is not of its hour: something must happen now.
    post_id = unique("seen-on-the-page")
    pipeline.ingest([post_created(post_id, WORDS)])
    pipeline.ingest([post_deleted(post_id)])
    with pipeline.client() as client:
        client.retrieve(RetrieveRequest(text=WORDS, k=1))
    _counts_up(page.locator("#hour tbody tr").nth(0).locator("td").nth(0), "events?")
    _counts_up(page.locator("#hour tbody tr").nth(1).locator("td").nth(0), "deletes?")
    assert cells(page, "hour", "Events")[2:] == [cells(page, "hour", "Events")[2], "99 % within 60 s"]
    assert re.fullmatch(r"\d+\.\d\d %", cells(page, "hour", "Events")[2])
    for figure in ("#p50", "#p99", "#newest"):
        expect(page.locator(figure)).to_have_text(re.compile(r"^\d+(\.\d)? (s|min)"))

    pipeline.wait()
    status = pipeline.ask("status")
    expect(page.locator("#tiers tbody tr").nth(0)).to_contain_text(f"{status['tiers']['hot']['posts']:,} posts")
    expect(page.locator("#tiers tbody tr").nth(1)).to_contain_text(f"{status['tiers']['cold']['posts']:,} posts")
    expect(page.locator("#tiers tbody tr").nth(1)).to_contain_text(f"{status['tiers']['cold']['members']:,} members")
    for stage in ("contexts", "trending", "encode", "index"):
        age, waiting = cells(page, "stages", stage)[2:4]
        assert re.fullmatch(r"\d+(\.\d)? (s|min)", age)
        assert re.fullmatch(r"[\d,]+ records?", waiting)
    assert cells(page, "stages", "encode")[1] == status["generation"]
    for what in ("Records read", "Contexts encoded", "Tokens", "Changes indexed", "Answers", "Whole"):
        expect(page.locator("#rates tbody tr", has_text=what)).to_contain_text(re.compile(r"\d/s$"))
    for chart in ("fresh", "lag", "rates"):
        expect(page.locator(f"#chart-{chart} polyline").first).to_be_attached()
        label = page.locator(f"#chart-{chart} svg[role=img]").get_attribute("aria-label")
        assert re.search(r"now [\d.,]+ ?(s|min|/s), lowest", label or ""), label
    assert cells(page, "generations", status["generation"])[1:3] == ["serving", "blue"]
    shown = {row[0]: row[1] for row in map(_texts, page.locator("#processes tbody tr").all())}
    assert shown == {each["name"]: str(each["pid"]) for each in status["processes"]}
    expect(page.locator("#no-alerts")).to_be_visible()


def test_a_question_is_answered_as_by_the_retriever(page: Page, pipeline: Pipeline) -> None:
    page.get_by_role("textbox", name="Words").fill(WORDS)
    page.get_by_role("button", name="Ask").click()
    rows = page.locator("#answers tbody tr")
    expect(rows).to_have_count(10)
    with pipeline.client() as client:
        answer = client.retrieve(RetrieveRequest(text=WORDS, k=10))
    shown = [_texts(row) for row in rows.all()]
    assert [row[1] for row in shown] == answer.post_ids
    assert [row[2] for row in shown] == [f"{score:.3f}" for score in answer.scores]
    assert all(len(row[4]) > 10 for row in shown), "the texts are there"
    assert re.match(rf"10 candidates of {answer.generation} in [\d.]+ ms", page.locator("#answer-note").inner_text())


def test_a_stopped_stage_is_named_and_what_was_named_goes(page: Page, pipeline: Pipeline) -> None:
    (pid,) = (process.pid for process in pipeline.instance.processes if process.name == "trending")
    process = psutil.Process(pid)
    process.suspend()
    try:
        expect(page.locator("#state")).to_have_text("Standing still: trending")
        expect(page.locator("#standing li")).to_contain_text(f"trending (pid {pid}) is stopped by a signal")
        expect(page.locator("#processes tr", has_text="trending")).to_contain_text("stopped by a signal")
        expect(page.locator("#alerts tbody tr")).to_contain_text("NearlineStageStandsStill")
        _finds_nothing_serious(page)
    finally:
        process.resume()
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#no-alerts")).to_be_visible()


def test_dead_letters_are_counted_by_cause(page: Page, pipeline: Pipeline) -> None:
    expect(page.locator("#no-letters")).to_be_visible()
    Sender(KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)).send(topics.POSTS, [("p", b"{")])
    try:
        expect(page.locator("#letters tbody tr")).to_contain_text("1 letter")
        assert cells(page, "letters", "contexts")[1:3] == ["not json", "1 letter"]
        expect(page.get_by_role("button", name="Replay")).to_be_disabled()
    finally:
        pipeline.run("dead-letters", "drop", "--all")
    expect(page.locator("#no-letters")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_can_be_read_by_everybody(browser: Browser, pipeline: Pipeline, scheme: str, width: int) -> None:
    expect.set_options(timeout=SLOW_MS)
    monitor = pipeline.instance.monitor
    assert monitor is not None
    with opened(browser, monitor, scheme="dark" if scheme == "dark" else "light", width=width) as page:
        expect(page.locator("#chart-lag polyline").first).to_be_attached()
        _finds_nothing_serious(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, "a phone does not scroll sideways"


def _finds_nothing_serious(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    serious = [each for each in violations if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious] == []


def _counts_up(cell: Locator, unit: str) -> None:
    expect(cell).to_have_text(re.compile(rf"^[1-9][\d,]* {unit}$"))


def _texts(row: Locator) -> list[str]:
    return row.locator("th, td").all_inner_texts()
