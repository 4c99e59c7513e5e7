"""What the pages for users say is what the code does."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from nearline.demo import world_command
from nearline.demo.subjects import SUBJECTS
from nearline.demo.world import make_world
from nearline.settings.loading import load_settings
from retriever import nearline_pb2 as pb
from retriever.grpc import calls as grpc_calls
from retriever.http import problems
from retriever.reasons import Code
from schemas.api import ProblemCode
from schemas.ids import Micros
from tests.kit.grpc_stand_in import StandIn
from trainer.plan import Plan
from trainer.settings import read_settings

ROOT: Final = Path(__file__).parent.parent
SERVING: Final = (ROOT / "docs" / "serving.md").read_text()
PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))


def _anchors(page: Path) -> set[str]:
    """Of its headings, as they are made from their words."""
    without_code = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


@pytest.mark.parametrize("page", ["README.md", "docs/settings.md"])
def test_the_settings_of_the_pages_are_settings(page: str, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(package = .*?)```", (ROOT / page).read_text(), re.DOTALL)
    file = tmp_path / "nearline.toml"
    file.write_text(example)
    settings = load_settings(file)
    assert settings.kafka.bootstrap_servers == "kafka-1:9092"
    assert str(settings.cold.url) == "https://qdrant:6333"


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


def test_the_readmes_ids_and_subjects_are_the_made_up_worlds() -> None:
    """Of `python -m nearline.demo.world` without options, whatever the time is."""
    readme = (ROOT / "README.md").read_text()
    assert f"its world's {len(SUBJECTS)} subjects" in readme
    ids = set(re.findall(r"\b[mp]\d{5,}\b", readme))
    assert ids == {"m00007", "p000007"}
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    default_seed = next(option.default for option in world_command.main.params if option.name == "seed")
    for at in (now, now + timedelta(days=100, hours=7)):
        truth = make_world(default_seed, at).truth
        live = {*truth.subject_of, *truth.interests} - {*truth.deleted_posts, *truth.deleted_members}
        assert ids <= live


def test_the_page_of_metrics_names_each_metric_and_no_other() -> None:
    """By the names in the source, each of which is followed by its help."""
    folders = ("nearline", "streams", "retriever", "indexer", "encoders")
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    in_source = {name for text in sources for name in re.findall(r'"((?:nearline|kafka)_[a-z_]+)",\s+"', text)}
    of_encoder = re.findall(r'_counter\("(\w+)"', (ROOT / "encoders" / "metrics.py").read_text())
    in_source |= {f"nearline_encode_{name}" for name in of_encoder}
    named = set(re.findall(r"`((?:nearline|kafka)_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    assert {re.sub(r"_(total|info)$", "", name) for name in named} == in_source


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_the_settings_of_the_trainer_on_the_pages_are_settings(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    examples = [block for block in blocks if not block.startswith("package = ")]
    assert examples
    for example in examples:
        (tmp_path / "train.toml").write_text(example)
        settings = read_settings(tmp_path / "train.toml")
        Plan(Micros(0), 1, 0, settings, "docs").refuse_what_is_not_learned()
