"""What the pages for users say is what the code does."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from retriever import nearline_pb2 as pb
from retriever.grpc import calls as grpc_calls
from retriever.http import problems
from retriever.reasons import Code
from schemas.api import ProblemCode
from tests.kit.grpc_stand_in import StandIn

ROOT: Final = Path(__file__).parent.parent
SERVING: Final = (ROOT / "docs" / "serving.md").read_text()


def test_every_reason_is_explained_and_says_whether_the_answer_is_partial() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", SERVING, re.MULTILINE))
    docstrings = (ROOT / "retriever" / "reasons.py").read_text()
    said = dict(re.findall(r'= "(\w+)"\n    """([^"]+)"""', docstrings))
    assert rows == {code.value: "yes" if "Partial." in said[code.value] else "no" for code in Code}


def test_every_error_code_is_listed_with_its_status_both_ways() -> None:
    rows = re.findall(r"^\| `(\w+)` \|\s*([A-Z_]*)[^|]*\|\s*(\d+)", SERVING, re.MULTILINE)
    grpc_names = {code: status.name for code, status in grpc_calls.STATUSES.items()}
    statuses = {code.value: (grpc_names.get(code, ""), str(problems.STATUSES[code])) for code in ProblemCode}
    assert {code: (grpc, http) for code, grpc, http in rows} == statuses


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_lines_of_python_ask_for_candidates(page: str) -> None:
    lines = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[0]
    with StandIn() as stand_in:
        stand_in.answer(
            pb.RetrieveResponse(post_ids=["p1", "p2"], scores=[0.5, 0.25], tiers=[pb.TIER_HOT, pb.TIER_COLD])
        )
        program = lines.replace('Client("localhost:8081")', f'Client("{stand_in.url}", timeout_s=20.0)')
        assert program != lines
        names: dict[str, Any] = {}
        exec(program, names)
    assert names["answer"].post_ids == ("p1", "p2")
    assert stand_in.received[0].request.member_id == "m00007"


def test_the_page_of_metrics_names_each_metric_and_no_other() -> None:
    """By the names in the source, each of which is followed by its help."""
    folders = ("nearline", "streams", "retriever", "indexer", "encoders")
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    in_source = {name for text in sources for name in re.findall(r'"((?:nearline|kafka)_[a-z_]+)",\s+"', text)}
    of_encoder = re.findall(r'_counter\("(\w+)"', (ROOT / "encoders" / "metrics.py").read_text())
    in_source |= {f"nearline_encode_{name}" for name in of_encoder}
    named = set(re.findall(r"`((?:nearline|kafka)_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    assert {re.sub(r"_(total|info)$", "", name) for name in named} == in_source
