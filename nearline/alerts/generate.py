"""Writes `deploy/prometheus/rules.yaml` from `deploy/slo.toml`: `python -m nearline.alerts.generate`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from nearline.alerts.objectives import Objectives, read_objectives
from nearline.alerts.rule import Alert, Group, Recording
from nearline.alerts.rules import groups

RULES: Final = Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "rules.yaml"
_HEAD: Final = "# Made from deploy/slo.toml by `python -m nearline.alerts.generate`. Change it there.\n"
_EVERY: Final = "15s"


def main() -> int:
    RULES.write_text(rendered(read_objectives()))
    return 0


def rendered(objectives: Objectives) -> str:
    """As YAML. Every text is written as in JSON, which YAML takes."""
    return _HEAD + "".join(f"{line}\n" for line in _lines(groups(objectives), objectives.runbooks))


def _lines(made: Iterable[Group], runbooks: str) -> Iterator[str]:
    yield "groups:"
    for group in made:
        yield f"  - name: {group.name}"
        yield f"    interval: {_EVERY}"
        yield "    rules:"
        for rule in group.rules:
            yield from _recording(rule) if isinstance(rule, Recording) else _alert(rule, runbooks)


def _recording(rule: Recording) -> Iterator[str]:
    yield f"      - record: {rule.record}"
    yield f"        expr: {json.dumps(rule.expr)}"


def _alert(rule: Alert, runbooks: str) -> Iterator[str]:
    yield f"      - alert: {rule.alert}"
    yield f"        expr: {json.dumps(rule.expr)}"
    yield f"        for: {rule.holds_for}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    yield f"          summary: {json.dumps(rule.summary)}"
    yield f"          runbook_url: {json.dumps(f'{runbooks}/{rule.page}.md')}"


if __name__ == "__main__":
    raise SystemExit(main())
