"""Makes the pictures of the operators' page that README shows, of an instance that runs:
`python -m tests.kit.screenshots --data-dir DIR`. NEARLINE_SERVE__API_KEY is its key, if it has one."""

import argparse
import io
import os
from pathlib import Path
from typing import Final, Literal, NamedTuple

from PIL import Image
from playwright.sync_api import Browser, expect

from nearline.settings.instance import read_instance
from tests.kit.browser import opened, running_browser

OUT: Final = Path(__file__).parent.parent.parent / "docs" / "pictures"
MAX_BYTES: Final = 150_000
_COLOURS: Final = 256
"""Few enough for a small file; the page has flat colours."""


class Picture(NamedTuple):
    name: str
    scheme: Literal["light", "dark"]
    width: int
    height: int


PICTURES: Final = (Picture("operators-page", "light", 1280, 1160), Picture("operators-page-phone", "dark", 390, 1160))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".nearline"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    url = read_instance(options.data_dir).monitor
    assert url is not None, "this instance has no monitor"
    options.out.mkdir(parents=True, exist_ok=True)
    with running_browser() as browser:
        for picture in PICTURES:
            body = taken(browser, url, picture)
            assert len(body) <= MAX_BYTES, f"{picture.name}: {len(body)} bytes"
            (options.out / f"{picture.name}.png").write_bytes(body)


def taken(browser: Browser, url: str, picture: Picture) -> bytes:
    with opened(browser, url, scheme=picture.scheme, width=picture.width, height=picture.height) as page:
        expect(page.locator("#chart-lag polyline").first).to_be_attached(timeout=60_000)
        page.get_by_label("API key").fill(os.environ.get("NEARLINE_SERVE__API_KEY", ""))
        page.locator("h1").click()  # nothing has the focus
        image = Image.open(io.BytesIO(page.screenshot()))
    small = io.BytesIO()
    image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    main()
