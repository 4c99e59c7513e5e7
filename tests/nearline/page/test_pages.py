"""The page, its endpoint and its acts over HTTP: who may do what, and what is said to whom."""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nearline.alerts.objectives import read_objectives
from nearline.errors import NotReady
from nearline.page.access import NO_KEY, NO_OWN_KEY, OTHER_HOST, OTHER_SITE
from nearline.page.overview import Overview
from nearline.page.pages import Question, RollBack
from nearline.ports import free_ports
from retriever.service.api_key import REFUSAL
from streams.errors import ActRefused
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER
from tests.nearline.page.conftest import KEY, PlayedActs, ServedPage, served_page

ACTS = {
    "build": {"package": "my-package", "reason": "newer"},
    "promote": {"generation": "b-2", "share": 0.05},
    "rollback": {"reason": "old posts"},
    "replay-dead-letters": {"stage": "encode", "cause": "unencodable"},
}


@pytest.fixture
def keyless(acts: PlayedActs, tmp_path: Path) -> Iterator[ServedPage]:
    """On loopback, without a key of its own; the retriever has none either."""
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], key=None) as page:
        page.monitor.judge()
        yield page


@pytest.fixture
def page(two_served: ServedPage) -> ServedPage:
    return two_served


def test_the_page_is_one_small_file_that_talks_to_nobody_else(page: ServedPage) -> None:
    answer = page.ask("GET", "/")
    html = answer.body.decode()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert len(answer.body) <= 150_000
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", html) == ["data:,", "#main", "/v1/overview", "/metrics"]
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html
    policy = answer.headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_comes_from_elsewhere_is_only_set_as_text(page: ServedPage) -> None:
    html = page.ask("GET", "/").body.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", html)


def test_the_endpoint_says_what_is_known_before_anything_is(page: ServedPage) -> None:
    said = page.overview()
    assert (said["ready"], said["report"]["broker_up"], said["collected_age_s"]) == (False, False, None)
    assert [each["id"] for each in said["generations"]] == ["a-1", "b-2"]
    assert said["history"] == {"at_s": [], "series": {}}
    assert said["runbooks"] == read_objectives().runbooks


def test_the_endpoint_says_what_was_collected_also_while_the_broker_is_away(page: ServedPage) -> None:
    page.monitor.judge()
    for _ in range(2):
        page.collector.look()
    said = page.overview()
    assert said["tiers"] == {"cold_posts": 1_200, "cold_members": 100, "hot_posts": 600, "hot_caught_up": True}
    assert (said["freshness"]["p50_s"], said["freshness"]["p99_s"]) == (0.8, 2.5)
    assert said["freshness"]["newest_age_s"] >= 3.0
    assert said["history"]["series"]["freshness_p99_s"] == [2.5, 2.5]
    since = said["history"]["at_s"][-1]
    assert page.ask("GET", f"/v1/overview?since={since + 1}").json["history"]["at_s"] == []
    assert page.ask("GET", "/v1/overview?since=no+number").json["history"]["at_s"]


def test_the_page_of_the_docs_names_every_field(page: ServedPage) -> None:
    docs = (Path(__file__).parent.parent.parent.parent / "docs" / "operators-page.md").read_text()
    named = set(re.findall(r"^\| `([a-z_]+)`", docs, re.MULTILINE))
    assert named == {field.name for field in msgspec.structs.fields(Overview)}
    for path in ("/v1/question", *(f"/v1/acts/{name}" for name in ACTS)):
        assert f"`{path}`" in docs


@pytest.mark.parametrize("name", ACTS)
def test_an_act_wants_the_key(page: ServedPage, acts: PlayedActs, name: str) -> None:
    path, body = f"/v1/acts/{name}", ACTS[name]
    for headers in ({}, {"X_API_Key": ""}, {"X_API_Key": "another"}, {"X_API_Key": "ü"}, {"Cookie": f"key={KEY}"}):
        refused = page.ask("POST", path, body, **headers)
        assert (refused.status, refused.json) == (401, {"detail": REFUSAL})
    assert acts.done == []
    done = page.ask("POST", path, body, X_API_Key=KEY)
    assert (done.status, done.json) == (200, {"done": "it is done"})
    assert [msgspec.to_builtins(act) for act in acts.done] == [{**msgspec.to_builtins(acts.done[0]), **body}]
    assert page.ask("GET", path, X_API_Key=KEY).status == 404, "a link does nothing"


def test_without_a_key_nobody_may_act(acts: PlayedActs, tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], key=None) as page:
        refused = page.ask("POST", "/v1/acts/rollback", {}, X_API_Key="")
        assert (refused.status, refused.json) == (403, {"detail": NO_KEY})
        said = page.overview()
        assert (said["acts_allowed"], said["no_acts_because"], said["question_needs_key"]) == (False, NO_KEY, False)
        assert page.ask("POST", "/v1/question", {"text": "w"}).status == 401, "another site's page could send this"
        assert page.ask("POST", "/v1/question", {"text": "w"}, X_API_Key="").status == 200
    assert acts.done == [Question("w")]


def test_on_loopback_without_a_key_of_its_own_the_retrievers_is_wanted(acts: PlayedActs, tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], key=None, serve_key=KEY) as page:
        assert page.overview()["acts_allowed"] is True
        assert page.ask("POST", "/v1/acts/rollback", {}).status == 401
        assert page.ask("POST", "/v1/acts/rollback", {}, X_API_Key=KEY).status == 200


def test_the_retrievers_clients_may_not_act_where_the_monitor_has_its_own_key(acts: PlayedActs, tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], serve_key="of-all-clients") as page:
        for path in ("/v1/acts/rollback", "/v1/question"):
            assert page.ask("POST", path, {}, X_API_Key="of-all-clients").status == 401
    assert acts.done == []


def test_beyond_loopback_the_retrievers_key_changes_nothing(acts: PlayedActs, tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], key=None, serve_key=KEY, host="0.0.0.0") as page:
        refused = page.ask("POST", "/v1/acts/rollback", {}, X_API_Key=KEY)
        assert (refused.status, refused.json) == (403, {"detail": NO_OWN_KEY})
        assert "set monitor.api_key" in NO_OWN_KEY
        said = page.overview()
        assert (said["acts_allowed"], said["no_acts_because"]) == (False, NO_OWN_KEY)
        assert page.ask("POST", "/v1/question", {"text": "w"}, X_API_Key="").status == 401
        assert page.ask("POST", "/v1/question", {"text": "w"}, X_API_Key=KEY).status == 200
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], host="0.0.0.0") as page:
        assert page.ask("POST", "/v1/acts/rollback", {}, X_API_Key=KEY).status == 200
        assert page.ask("GET", "/", Host="monitor.example").status == 200
    assert acts.done == [Question("w"), RollBack()]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9308", "localhost.:1", "127.0.0.1:80", "127.9.9.9", "[::1]:9308", "a.localhost"]
)
def test_on_loopback_its_names_are_answered(keyless: ServedPage, host: str) -> None:
    assert keyless.ask("GET", "/livez", Host=host).status == 200
    assert keyless.ask("POST", "/v1/question", {"text": "w"}, Host=host, X_API_Key="").status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("attacker.example", "attacker.example:9308", "127.0.0.1.attacker.example", "localhost.attacker.example"),
        *("notlocalhost", "192.0.2.7:9308", "0.0.0.0", "[2001:db8::1]", "127.0.0.1@attacker.example", "[", ""),
    ],
)
def test_another_sites_name_that_leads_here_is_refused_everything(
    keyless: ServedPage, acts: PlayedActs, host: str
) -> None:
    """DNS rebinding: a browser takes what is asked so for that site's own, and lets its page send any header."""
    calls = [("GET", path) for path in ("/", "/v1/overview", "/metrics", "/readyz", "/livez", "/else")]
    calls += [("POST", path) for path in ("/v1/question", "/v1/acts/rollback", "/else")]
    for method, path in calls:
        refused = keyless.ask(method, path, {}, Host=host, X_API_Key="")
        assert (refused.status, refused.json) == (403, {"detail": OTHER_HOST}), path
    assert acts.done == []


def test_with_its_own_key_it_may_be_reached_by_any_name(page: ServedPage) -> None:
    assert page.ask("GET", "/v1/overview", Host="monitor.example").status == 200


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"Origin": "http://attacker.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "http://monitor.example", "Host": "monitor.example"}, True),
        ({"Origin": "https://Monitor.example", "Host": "monitor.example"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-site", "Origin": "http://localhost:1", "Host": "localhost:1"}, False),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "https://behind-a-proxy.example"}, True),
        ({"Sec_Fetch_Site": "none"}, True),
    ],
)
def test_what_another_sites_page_sends_is_refused_also_with_the_key(
    page: ServedPage, acts: PlayedActs, headers: dict[str, str], may: bool
) -> None:
    for path, body in (("/v1/acts/rollback", {}), ("/v1/question", {"text": "w"})):
        answer = page.ask("POST", path, body, X_API_Key=KEY, **headers)
        assert answer.status == (200 if may else 403)
        assert may or answer.json == {"detail": OTHER_SITE}
    assert len(acts.done) == (2 if may else 0)


def test_a_question_wants_the_key_too(page: ServedPage, acts: PlayedActs) -> None:
    assert page.ask("POST", "/v1/question", {"text": "w"}, X_API_Key="").status == 401
    assert page.ask("POST", "/v1/question", {"text": "w"}, Authorization=f"Bearer {KEY}").status == 401
    asked = page.ask("POST", "/v1/question", {"member_id": "m1", "k": 3}, X_API_Key=KEY)
    assert asked.json == {"generation": "a-1", "partial": False, "candidates": [], "total_ms": 1.5, "notes": []}
    assert acts.done == [Question(member_id="m1", k=3)]


def test_a_refusal_is_one_sentence(page: ServedPage, acts: PlayedActs) -> None:
    acts.refusal = ActRefused("no generation is kept beside a-1")
    refused = page.ask("POST", "/v1/acts/rollback", {}, X_API_Key=KEY)
    assert (refused.status, refused.json) == (409, {"detail": "no generation is kept beside a-1"})
    acts.refusal = NotReady("the retriever does not listen yet")
    silent = page.ask("POST", "/v1/question", {"text": "w"}, X_API_Key=KEY)
    assert (silent.status, silent.json) == (409, {"detail": "the retriever does not listen yet"})
    acts.refusal = PermissionError(13, "Permission denied", "/packages")
    failed = page.ask("POST", "/v1/acts/build", ACTS["build"], X_API_Key=KEY)
    assert failed.status == 500
    assert failed.json == {"detail": "this could not be done: [Errno 13] Permission denied: '/packages'"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"cause": 1}',
        b'{"else": 1}',
        b"\xff",
        b'{"reason": 7}',
        b'{"reason": "\xff"}',
    ],
    ids=range(8),
)
def test_a_body_that_is_something_else_is_refused(page: ServedPage, acts: PlayedActs, body: bytes) -> None:
    refused = page.ask("POST", "/v1/acts/rollback", body, X_API_Key=KEY)
    assert refused.status == 400
    assert refused.json["detail"].startswith("the body is not as it should be: ")
    assert acts.done == []


def test_a_body_is_small(page: ServedPage) -> None:
    refused = page.ask("POST", "/v1/acts/rollback", b" " * 70_000, X_API_Key=KEY)
    assert refused.status == 413
    assert page.ask("POST", "/v1/acts/rollback", b"{}", X_API_Key=KEY, Content_Length="-1").status == 411
    assert page.ask("POST", "/v1/else", {}, X_API_Key=KEY).status == 404


def test_one_build_at_a_time_and_nothing_else_waits_for_it(page: ServedPage, acts: PlayedActs) -> None:
    acts.may_go_on.clear()
    ask = ("POST", "/v1/acts/build", ACTS["build"])
    first = threading.Thread(target=page.ask, args=ask, kwargs={"X_API_Key": KEY})
    first.start()
    assert acts.begun.wait(60)
    second = page.ask(*ask, X_API_Key=KEY)
    assert second.status == 409
    assert second.json == {"detail": "another generation is being prepared; wait until that is done"}
    assert page.ask("POST", "/v1/acts/rollback", {}, X_API_Key=KEY).status == 200
    assert acts.done == [RollBack()]
    acts.may_go_on.set()
    first.join(60)
    assert [type(act).__name__ for act in acts.done] == ["RollBack", "Build"]
    assert page.ask(*ask, X_API_Key=KEY).status == 200
