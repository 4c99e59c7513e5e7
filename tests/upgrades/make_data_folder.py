"""Makes the data folder that `test_data_folder.py` starts on, as the version that runs this command leaves it:

    python -m tests.upgrades.make_data_folder tests/upgrades/data/VERSION.tar.xz

Run it with the version before, before a form is changed, and commit what it makes. It runs a whole `nearline up` on a
few events, stops it, and keeps what lies on disk, without what another start would make anew.
"""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from nearline.pipeline import Pipeline
from tests.kit.data.events import activity, member_updated, post_created, post_deleted, post_updated
from tests.kit.packages import make_tiny_package

EXPECTED: Final = "expected.json"
_ENVIRONMENT: Final = {
    "NEARLINE_KAFKA__PARTITIONS": "1",
    "NEARLINE_MONITOR__CANARY_S": "0",
}
_MADE_ANEW: Final = ("LOG", "LOG.old*", "LOCK", "broker.pid", "output.log", "server.log*", "tmp", "*.jsa")


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nearline-before-") as name:
        folder = Path(name)
        package = make_tiny_package(folder / "package", hidden=16, layers=1)
        with Pipeline(folder / "data", package=package.folder, environment=_ENVIRONMENT) as pipeline:
            pipeline.ingest(_events())
            pipeline.wait()
            expected = _expected(pipeline, package.generation)
        (folder / "data" / EXPECTED).write_text(json.dumps(expected, indent=1))
        archive.parent.mkdir(parents=True, exist_ok=True)
        _pack(folder / "data", archive)
    print(f"{archive}: {archive.stat().st_size} bytes")


def _events() -> list[dict[str, Any]]:
    """Of everything that is stored differently: a post that was updated, one that was deleted, one that activity waits
    for; members with and without a history."""
    at = [(datetime.now(UTC) - timedelta(hours=1, seconds=-n)).isoformat() for n in range(20)]
    first = post_created("p1", "how to bake bread with a sourdough starter", author_id="m1", at=at[0])
    return [
        member_updated("m1", at=at[1], headline="baker", language="en"),
        member_updated("m2", at=at[2], headline="sailor"),
        first,
        post_created("p2", "a long walk in the mountains in the morning fog", author_id="m2", at=at[3], language="en"),
        post_created("p3", "the build of the network card failed again", author_id="m1", at=at[4]),
        post_updated(first, "how to bake bread with a hot oven", at=at[5]),
        *(activity("m2", "p1", "like", at=each) for each in at[6:9]),
        activity("m1", "p2", "hide", at=at[9]),
        activity("m3", "p2", "comment", at=at[10]),
        activity("m2", "not-here-yet", "like", at=at[11]),
        post_deleted("p3", at=at[12]),
    ]


def _expected(pipeline: Pipeline, generation: str) -> dict[str, Any]:
    return {
        "generation": generation,
        "hot": sorted(pipeline.lines("dump", "posts", "--tier", "hot"), key=lambda post: post["post_id"]),
        "cold": sorted(pipeline.lines("dump", "posts", "--tier", "cold"), key=lambda post: post["post_id"]),
        "vectors": {post: pipeline.lines("vectors", "post", post) for post in ("p1", "p2")},
        "posts": {post: pipeline.ask("get", "post", post) for post in ("p1", "p2", "p3")},
        "members": {member: pipeline.ask("get", "member", member) for member in ("m1", "m2", "m3")},
    }


def _pack(folder: Path, archive: Path) -> None:
    """The files of the embedded engine are tens of megabytes of zeros each, so GNU tar leaves these out."""
    left_out = [f"--exclude={name}" for name in _MADE_ANEW]
    owner = ("--owner=0", "--group=0", "--numeric-owner", "--sort=name")
    command = ["tar", "--sparse", "--hole-detection=raw", "--xz", *owner, *left_out]
    subprocess.run([*command, "-cf", archive, "-C", folder.parent, folder.name], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
