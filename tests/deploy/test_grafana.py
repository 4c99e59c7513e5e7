"""The boards: made from code, about metrics that there are, and found by the Grafana of compose.

Whether Prometheus has data for each of them `tests/e2e/test_prometheus.py` looks.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.boards.generate import BOARDS, FOLDER, rendered
from tests.kit.boards import queries
from tests.kit.metric_names import defined_metrics, labels_in, names_in

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MADE: Final[dict[str, dict[str, Any]]] = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_is_what_the_code_makes(board: Any) -> None:
    """`python -m deploy.boards.generate` renews them."""
    assert (FOLDER / f"{board.name}.json").read_text() == rendered(board)


def test_there_are_the_boards_that_an_operator_looks_for_and_no_others() -> None:
    stages = {"contexts", "trending", "encode", "index"}
    assert MADE.keys() == {board.name for board in BOARDS} == {"overview", *stages, "retrieval", "generations"}
    assert len({made["uid"] for made in MADE.values()}) == len(MADE)


@pytest.mark.parametrize("name", MADE)
def test_panels_have_names_units_and_places_of_their_own(name: str) -> None:
    panels = [panel for panel in MADE[name]["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    corners = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(corners) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)


@pytest.mark.parametrize("query", queries(MADE), ids=lambda query: f"{query.board}: {query.panel} {query.letter}")
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: Any) -> None:
    metrics = defined_metrics()
    names = names_in(query.expr)
    assert names <= metrics.keys()
    assert names or "ALERTS" in query.expr
    for name, labels in labels_in(query.expr).items():
        assert labels - {"le"} <= metrics[name], name
    for label in query.labels:
        assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", query.expr), f"no series has the label {label}"


def test_compose_provisions_the_boards_and_prometheus() -> None:
    service = COMPOSE["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    at = {inside: (DEPLOY / source).resolve() for source, inside in mounts.items() if source.startswith("./")}
    provisioning = at["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "nearline.yaml").read_text())["providers"]
    assert at[provider["options"]["path"]] == FOLDER.resolve()
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (at[str(home.parent)] / home.name).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][host]["ports"]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
