"""The queries of Grafana's boards."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class BoardQuery(NamedTuple):
    board: str
    panel: str
    letter: str
    expr: str
    labels: frozenset[str]
    """Those by which its series are named."""


def queries(boards: Mapping[str, Mapping[str, Any]]) -> list[BoardQuery]:
    """Of all panels of these boards (JSON, by name)."""
    return [
        BoardQuery(
            name,
            panel["title"],
            target["refId"],
            target["expr"],
            frozenset(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))),
        )
        for name, board in boards.items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]
