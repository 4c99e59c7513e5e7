"""The alerts: made from the objectives, about metrics that there are, with a page each, and tested by Prometheus."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import ValidationError

from nearline.alerts.generate import RULES, rendered
from nearline.alerts.objectives import FILE, Objectives, read_objectives
from nearline.alerts.rules import groups
from streams.settings import KafkaSettings
from tests.kit.command_lines import parse_command_line
from tests.kit.metric_names import defined_metrics, labels_in, names_in
from tests.kit.programs import program

ROOT: Final = Path(__file__).parent.parent.parent.parent
PAGES: Final = ROOT / "docs" / "runbooks"
TESTS: Final = tuple(RULES.with_name(f"{name}.tests.yaml") for name in ("budgets", "symptoms", "tiers-and-disks"))
HEADINGS: Final = ["What users notice", "How to tell", "What to do", "Undo"]
MADE: Final = yaml.safe_load(RULES.read_text())
RULE_LIST: Final[list[dict[str, Any]]] = [rule for group in MADE["groups"] for rule in group["rules"]]
ALERTS: Final = [rule for rule in RULE_LIST if "alert" in rule]
RECORDED: Final = {rule["record"] for rule in RULE_LIST if "record" in rule}
PAGE_FILES: Final = sorted(PAGES.glob("*.md"))


def test_the_rules_are_those_of_the_objectives() -> None:
    """`python -m nearline.alerts.generate` renews them."""
    assert RULES.read_text() == rendered(read_objectives())


def test_what_is_written_is_what_was_made() -> None:
    made = [rule for group in groups(read_objectives()) for rule in group.rules]
    assert [rule["expr"] for rule in RULE_LIST] == [rule.expr for rule in made]


@pytest.mark.parametrize("rule", RULE_LIST, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    metrics = defined_metrics()
    names = names_in(rule["expr"])
    assert names
    assert names - RECORDED <= metrics.keys()
    for name, labels in labels_in(rule["expr"]).items():
        assert labels - {"le"} <= metrics[name], name


def test_every_alert_has_a_name_of_its_own_and_a_page() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    base = read_objectives().runbooks
    pages = {alert["annotations"]["runbook_url"] for alert in ALERTS}
    assert pages == {f"{base}/{file.name}" for file in PAGE_FILES if file.stem != "README"}, "no page without an alert"
    assert all(alert["labels"]["severity"] in ("page", "ticket") for alert in ALERTS)


def test_every_page_names_its_alerts_and_no_others() -> None:
    for file in PAGE_FILES:
        named = set(re.findall(r"\bNearline[A-Z]\w+", file.read_text()))
        own = {alert["alert"] for alert in ALERTS if alert["annotations"]["runbook_url"].endswith(f"/{file.name}")}
        assert named == ({alert["alert"] for alert in ALERTS} if file.stem == "README" else own), file.name


@pytest.mark.parametrize("file", PAGE_FILES, ids=lambda file: file.stem)
def test_a_page_is_written_of_what_there_is(file: Path) -> None:
    text = file.read_text()
    if file.stem != "README":
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (file.parent / link).exists(), link
    for name in re.findall(r"`((?:nearline|kafka)_\w+)[`{]", text):
        assert name in defined_metrics(), name
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["nearline"]:
                parse_command_line(words[1:])


def test_the_windows_and_rates_are_in_the_rules() -> None:
    objectives = read_objectives()
    burns = {(burn.rate, burn.long, burn.short, burn.severity) for burn in objectives.burn}
    assert burns == {(14.4, "1h", "5m", "page"), (6.0, "6h", "30m", "page"), (1.0, "3d", "6h", "ticket")}
    (alert,) = (alert for alert in ALERTS if alert["alert"] == "NearlineDeletesBurns1h")
    assert alert["expr"].startswith(
        "nearline:deletes_failed:share1h > 14.4 * 0.001 and nearline:deletes_failed:share5m > 14.4 * 0.001 and "
    )


def test_the_erasure_that_is_watched_is_the_one_that_is_promised() -> None:
    assert read_objectives().limits.erase_within_s == KafkaSettings().erase_within_s


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("freshness", "within_s", 61), ("freshness", "events", 1.0), ("limits", "unknown", 1)],
)
def test_an_objective_that_cannot_be_measured_is_refused(section: str, key: str, value: float) -> None:
    data = tomllib.loads(FILE.read_text())
    data[section][key] = value
    with pytest.raises(ValidationError, match=key):
        Objectives.model_validate(data)


def test_every_alert_has_tests_that_it_fires_and_that_it_does_not_and_that_it_resolves() -> None:
    """It resolves where it fires, and later in the same test does not."""
    fires, silent, resolves = set[str](), set[str](), set[str]()
    for test in (test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]):
        fired: dict[str, int] = {}
        for check in sorted(test["promql_expr_test"], key=lambda check: _seconds(check["eval_time"])):
            at_s = _seconds(check["eval_time"])
            for name in _firing(check):
                fired.setdefault(name, at_s)
            if not check["exp_samples"]:
                quiet = _asked_for(check)
                silent |= quiet
                resolves |= {name for name in quiet if at_s > fired.get(name, at_s)}
        fires |= fired.keys()
    names = {alert["alert"] for alert in ALERTS}
    assert names - fires == set(), "they never fire"
    assert names - silent == set(), "they are never silent"
    assert names - resolves == set(), "they never resolve"


def _asked_for(check: dict[str, Any]) -> set[str]:
    """The alerts that a check is about: all, if it names none."""
    pattern = re.findall(r'alertname=~?"([^"]+)"', check["expr"])
    return {alert["alert"] for alert in ALERTS if not pattern or re.fullmatch(pattern[0], alert["alert"])}


def _firing(check: dict[str, Any]) -> set[str]:
    """Those of them that are to fire."""
    if not check["exp_samples"]:
        return set()
    labels = " ".join(sample["labels"] for sample in check["exp_samples"])
    named = set(re.findall(r'alertname="(\w+)"', labels))
    return _asked_for(check) & named if named else _asked_for(check)


def _seconds(duration: str) -> int:
    """Of one such as 8h30m."""
    return sum(
        int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", RULES.name],
        ["check", "config", "--syntax-only", "prometheus.yaml"],
        *(["test", "rules", file.name] for file in TESTS),
    ],
    ids=lambda words: words[-1],
)
def test_promtool_takes_the_rules_and_their_tests(words: list[str]) -> None:
    done = subprocess.run(
        [str(program("promtool")), *words], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
