import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from encoders.encoder import Encoder
from nearline.commands.encode import encode
from schemas.contexts import Context, encode_context
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.packages import make_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_package(tmp_path_factory.mktemp("packages") / "tiny").folder


def lines(*contexts: Context) -> bytes:
    return b"\n".join(map(encode_context, contexts)) + b"\n\n"


def run(package: Path, data_dir: Path, option: str, body: bytes) -> Result:
    arguments = [option, "--package", str(package), "--data-dir", str(data_dir)]
    return CliRunner().invoke(encode, arguments, input=body)


def test_posts_in_vectors_out(package: Path, tmp_path: Path) -> None:
    result = run(
        package,
        tmp_path,
        "--post",
        lines(post_context("bread", post_id="p1"), post_context("", post_id="p2", deleted=True)),
    )
    lines_out = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["id"], row["revision"]) for row in lines_out] == [("p1", 1), ("p2", 1)]
    expected = Encoder.load(package, device="cpu").encode_text("bread")
    assert np.array_equal(np.array(lines_out[0]["vector"], dtype=np.float32), expected)
    assert lines_out[1]["vector"] is None


def test_members_in_vectors_out(package: Path, tmp_path: Path) -> None:
    result = run(package, tmp_path, "--member", lines(member_context(history_entry("bread")), member_context()))
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["id"], len(first["vector"])) == ("m1", 64)
    assert second["vector"] is None


def test_rendered_texts_and_no_vector(package: Path, tmp_path: Path) -> None:
    def rendered(option: str, body: bytes) -> list[list[dict[str, object]]]:
        arguments = [option, "--render", "--package", str(package), "--data-dir", str(tmp_path)]
        return [
            json.loads(line)["prompts"]
            for line in CliRunner().invoke(encode, arguments, input=body).stdout.splitlines()
        ]

    assert rendered(
        "--post", lines(post_context("bread", post_id="p1"), post_context("", post_id="p2", deleted=True))
    ) == [
        [{"text": "<|nearline:text|>bread", "weight": 1.0}],
        [],
    ]
    assert rendered("--member", lines(member_context(history_entry("bread"), headline="baker"))) == [
        [{"text": "<|nearline:text|>baker", "weight": 1.0}, {"text": "<|nearline:text|>bread", "weight": 1.0}]
    ]


@pytest.mark.parametrize(
    ("option", "body", "sentence"),
    [
        ("--post", lines(post_context("a")) + b"{\n", "<stdin>:3: not a post context"),
        ("--member", lines(post_context("a")), "<stdin>:1: not a member context"),
        ("--post", b'{"post_id": "p"}\n', "missing required field `revision`"),
    ],
)
def test_a_bad_line_is_one_sentence(package: Path, tmp_path: Path, option: str, body: bytes, sentence: str) -> None:
    result = run(package, tmp_path, option, body)
    assert result.exit_code == 1
    assert sentence in result.stderr


def test_the_kind_must_be_said() -> None:
    result = CliRunner().invoke(encode, [])
    assert "--post or --member" in result.stderr


def test_help_imports_no_torch() -> None:
    code = "import sys, nearline.commands.encode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
