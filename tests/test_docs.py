"""What the pages for users say is what the code does."""

import re
from pathlib import Path
from typing import Final

from retriever.grpc import calls as grpc_calls
from retriever.http import problems
from retriever.reasons import Code
from schemas.api import ProblemCode

SERVING: Final = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()


def test_every_reason_is_explained_and_says_whether_the_answer_is_partial() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", SERVING, re.MULTILINE))
    docstrings = (Path(__file__).parent.parent / "retriever" / "reasons.py").read_text()
    said = dict(re.findall(r'= "(\w+)"\n    """([^"]+)"""', docstrings))
    assert rows == {code.value: "yes" if "Partial." in said[code.value] else "no" for code in Code}


def test_every_error_code_is_listed_with_its_status_both_ways() -> None:
    rows = re.findall(r"^\| `(\w+)` \|\s*([A-Z_]*)[^|]*\|\s*(\d+)", SERVING, re.MULTILINE)
    grpc_names = {code: status.name for code, status in grpc_calls.STATUSES.items()}
    statuses = {code.value: (grpc_names.get(code, ""), str(problems.STATUSES[code])) for code in ProblemCode}
    assert {code: (grpc, http) for code, grpc, http in rows} == statuses
