"""The committed description is that of the code, and holds for requests that nobody thought of."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from retriever.http.openapi import OPENAPI, render
from tests.kit.data.embeddings import DIMENSION
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "positive_data_acceptance",
    "unsupported_method",
)

FIXED: Final = ("--generation-database", "none")


def test_the_committed_description_is_that_of_the_code() -> None:
    assert render() == OPENAPI.read_bytes(), "renew it with: python -m retriever.http.openapi"


def test_no_request_breaks_it_and_answers_are_as_described(tmp_path: Path) -> None:
    """In a process of its own: as a plugin of pytest, schemathesis would slow down the start of every other test."""
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a"), scored_post("gone", revision=2, deleted=True))
    retriever.in_hot(scored_post("b"))
    description = _for_this_generation(tmp_path / "openapi.json")
    with Served(retriever) as served:
        options = ["--url", served.url, "--checks", ",".join(CHECKS), "--max-examples", "20", "--seed", "7"]
        done = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "run", description, *options, *FIXED],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 11" in done.stdout


def _for_this_generation(file: Path) -> Path:
    """The description for every generation does not say how many numbers a vector has. And no request is so short of
    time that it cannot be answered."""
    description = json.loads(OPENAPI.read_bytes())
    for schema in description["components"]["schemas"].values():
        properties = schema.get("properties", {})
        if "vector" in properties:
            (vector, _) = properties["vector"]["anyOf"]
            vector.update(minItems=DIMENSION, maxItems=DIMENSION)
        if "anyOf" in properties.get("dimension", {}):
            (dimension, _) = properties["dimension"]["anyOf"]
            dimension.update(maximum=DIMENSION)
        if "timeout_ms" in properties:
            properties["timeout_ms"]["minimum"] = 30_000
            schema["required"] = [*schema.get("required", ()), "timeout_ms"]
    file.write_text(json.dumps(description))
    return file
