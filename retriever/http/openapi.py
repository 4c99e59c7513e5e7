"""Writes the description of the HTTP API: `python -m retriever.http.openapi`.

One file, `retriever/http/openapi.json`, committed; a test keeps it equal to the code.
"""

from pathlib import Path
from typing import Any, Final, cast

import msgspec

from retriever.http.app import create_app, describe
from retriever.settings import ServeSettings

OPENAPI: Final = Path(__file__).with_name("openapi.json")


def render() -> bytes:
    # Only the routes are looked at, so there is nothing behind them.
    nothing = cast(Any, None)
    app = create_app(nothing, nothing, nothing, ServeSettings())
    return msgspec.json.format(msgspec.json.encode(describe(app), order="deterministic"), indent=2) + b"\n"


if __name__ == "__main__":
    OPENAPI.write_bytes(render())
