"""Writes the OpenAPI description of the HTTP API to `retriever/http/openapi.json`: `python -m retriever.http.openapi`.

The file is committed, and a test checks that it equals the code.
"""

from pathlib import Path
from typing import Any, Final, cast

import msgspec

from retriever.http.app import create_app, describe
from retriever.settings import ServeSettings

OPENAPI: Final = Path(__file__).with_name("openapi.json")


def render() -> bytes:
    # Only the routes are described, so the app needs nothing behind them.
    unused = cast(Any, None)
    app = create_app(unused, unused, unused, unused, unused, ServeSettings())
    return msgspec.json.format(msgspec.json.encode(describe(app), order="deterministic"), indent=2) + b"\n"


if __name__ == "__main__":
    OPENAPI.write_bytes(render())
