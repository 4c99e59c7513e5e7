"""The page in a real browser: acts, texts from elsewhere, a server that goes away.

What a running instance shows on it is looked at by `tests/e2e/test_operators_page.py`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.report import Report
from nearline.page.access import NO_KEY
from nearline.page.collector import Sources
from nearline.ports import free_ports
from streams.errors import ActRefused
from streams.settings import KafkaSettings
from tests.kit.browser import opened, running_browser
from tests.kit.data.generations import two_live
from tests.kit.instances import NO_BROKER
from tests.kit.programs import needs
from tests.kit.running import child
from tests.nearline.page.conftest import KEY, TIERS, PlayedActs, ServedPage, served_page, standing

pytestmark = needs("chromium")

MONITOR = "tests.kit.children.monitor"
SLOW_MS = 60_000
"""On a busy machine."""
expect.set_options(timeout=SLOW_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def served(two_served: ServedPage) -> ServedPage:
    two_served.monitor.judge()
    two_served.collector.look()
    return two_served


@pytest.fixture
def page(served: ServedPage, browser: Browser) -> Iterator[Page]:
    with opened(browser, served.url) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        yield page


def test_a_generation_is_promoted_by_keyboard_with_the_key(page: Page, acts: PlayedActs) -> None:
    promote = page.get_by_role("button", name="Promote b-2")
    said = page.locator("#act-done")
    promote.focus()
    page.keyboard.press("Enter")
    expect(said).to_have_text(
        "the API key is missing or wrong; send it as Authorization: Bearer KEY or as X-API-Key: KEY"
    )
    assert acts.done == []
    page.get_by_label("API key").fill(KEY)
    promote.press("Enter")
    expect(said).to_have_text("it is done")
    assert [act.generation for act in acts.done] == ["b-2"]


def test_a_refusal_is_shown_as_it_was_said(page: Page, acts: PlayedActs) -> None:
    page.get_by_label("API key").fill(KEY)
    acts.refusal = ActRefused("my-package is <b>no</b> folder")
    page.get_by_label("Package").fill("my-package")
    page.get_by_role("button", name="Build").click()
    expect(page.locator("#act-done")).to_have_text("my-package is <b>no</b> folder")


def test_texts_of_posts_are_no_markup(page: Page, acts: PlayedActs) -> None:
    text = "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>"
    acts.texts = [text]
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("textbox", name="Words").fill("anything")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answers tbody tr")).to_have_count(1)
    expect(page.locator("#answers tbody td").last).to_have_text(text)
    assert page.locator("#answers img, #answers script").count() == 0
    assert "caught" not in page.title()


@pytest.mark.parametrize(
    ("runbooks", "is_link"),
    [
        ("https://runbooks.example/nearline", True),
        ("http://localhost:8000", True),
        ("docs/runbooks", False),
        ("javascript:alert(1)//https:/", False),
    ],
)
def test_the_runbook_of_an_alert_is_a_link_where_an_address_is_named(
    browser: Browser, acts: PlayedActs, tmp_path: Path, runbooks: str, is_link: bool
) -> None:
    kafka, port = KafkaSettings(bootstrap_servers=NO_BROKER), free_ports(1)[0]
    with served_page(tmp_path, kafka, acts, port, runbooks=runbooks) as served:
        served.monitor.report = standing("contexts")
        with opened(browser, served.url) as page:
            row, address = page.locator("#alerts tbody tr"), f"{runbooks}/stage-stands-still.md"
            shown, link = row.locator("td").last, row.get_by_role("link")
            expect(row.locator("th")).to_have_text("NearlineStageStandsStill")
            expect(shown).to_have_text("stage-stands-still" if is_link else address)
            expect(link).to_have_count(int(is_link))
            if is_link:
                expect(link).to_have_attribute("href", address)


def test_a_retriever_of_this_instance_that_does_not_answer_is_no_neutral_news(
    browser: Browser, acts: PlayedActs, tmp_path: Path
) -> None:
    kafka, port = KafkaSettings(bootstrap_servers=NO_BROKER), free_ports(1)[0]
    sources = Sources(lambda: TIERS._replace(ready=None), list, dict)
    with served_page(tmp_path, kafka, acts, port, sources=sources) as served:
        served.monitor.report = Report(ready=True, broker_up=True, look_age_s=1.0, standing_still=[])
        served.collector.look()
        with opened(browser, served.url) as page:
            state, alerts = page.locator("#state"), page.locator("#alerts tbody tr")
            expect(state).to_have_text("Unknown: no retriever has answered")
            expect(state).to_have_class("")
            expect(alerts).to_have_count(0)
            served.monitor.processes = [ProcessSeen("serve", 12, "running")]
            expect(state).to_have_text("Not ready: no retriever answers")
            expect(state).to_have_class("bad")
            expect(alerts.locator("th")).to_have_text("NearlineRetrieverAway")


def test_the_focus_stays_while_the_figures_change(served: ServedPage, page: Page) -> None:
    promote = page.get_by_role("button", name="Promote b-2")
    promote.focus()
    age = page.locator("#collected-age")
    before = age.text_content()
    expect(age).not_to_have_text(before or "")
    expect(promote).to_be_focused()


def test_without_a_key_nothing_can_be_pressed(browser: Browser, acts: PlayedActs, tmp_path: Path) -> None:
    kafka, port = KafkaSettings(bootstrap_servers=NO_BROKER), free_ports(1)[0]
    with (
        served_page(tmp_path, kafka, acts, port, state=lambda: two_live("ready"), key=None) as served,
        opened(browser, served.url) as page,
    ):
        expect(page.get_by_role("button", name="Promote b-2")).to_be_disabled()
        expect(page.get_by_role("button", name="Build")).to_be_disabled()
        expect(page.locator("#act-note")).to_have_text(NO_KEY)


def test_a_restart_of_the_server_is_survived(browser: Browser, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with child(MONITOR, str(tmp_path), str(port)) as monitor:
        assert monitor.stdout is not None
        assert monitor.stdout.readline() == "listens\n"
        with opened(browser, f"http://127.0.0.1:{port}") as page:
            state = page.locator("#state")
            expect(state).to_have_text("Standing still: broker")
            monitor.kill()
            expect(state).to_have_text("The monitor does not answer")
            expect(page.locator("#silent")).to_contain_text("old")
            with child(MONITOR, str(tmp_path), str(port)):
                expect(state).to_have_text("Standing still: broker")
                expect(page.locator("#silent")).to_have_text("")
