"""The rules with shorter windows. A real Prometheus with them is in `tests/e2e/test_prometheus.py`."""

from typing import Any

import yaml

from benchmarks.kit.prometheus import shortened
from nearline.alerts.generate import RULES


def _only(rule: dict[str, Any], factor: float) -> dict[str, Any]:
    (group,) = shortened({"groups": [{"name": "a", "interval": "15s", "rules": [rule]}]}, factor)["groups"]
    (changed,) = group["rules"]
    return dict(changed)


def test_windows_offsets_and_times_are_divided_and_bounds_are_not() -> None:
    rule = {"alert": "A", "expr": "rate(a:share5m[10m]) > 60 and b offset 1h > 5 and c[30d]", "for": "2m"}
    assert _only(rule, 60) == {
        "alert": "A",
        "expr": "rate(a:share5m[10000ms]) > 60 and b offset 60000ms > 5 and c[43200000ms]",
        "for": "2000ms",
    }


def test_in_the_shortest_window_there_are_still_some_looks() -> None:
    assert _only({"record": "a", "expr": "rate(a[5m])"}, 1000)["expr"] == "rate(a[3000ms])"


def test_no_duration_of_our_rules_is_left_as_it_was() -> None:
    text = yaml.safe_dump(shortened(yaml.safe_load(RULES.read_text()), 7), width=10_000)
    assert not any(f"[{each}]" in text for each in ("5m", "10m", "15m", "30m", "1h", "6h", "3d"))
    assert "offset 10m" not in text
