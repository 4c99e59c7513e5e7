"""What the pages for users say is what the code does."""

import re
from pathlib import Path
from typing import Final

from retriever.reasons import Code

SERVING: Final = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()


def test_every_reason_is_explained_and_says_whether_the_answer_is_partial() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", SERVING, re.MULTILINE))
    docstrings = (Path(__file__).parent.parent / "retriever" / "reasons.py").read_text()
    said = dict(re.findall(r'= "(\w+)"\n    """([^"]+)"""', docstrings))
    assert rows == {code.value: "yes" if "Partial." in said[code.value] else "no" for code in Code}
