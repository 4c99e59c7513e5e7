"""The health check of the images: asks `/livez` of a `nearline run`, or else of the retriever of a `nearline up`.

Ends with 0 where one of them answers that it lives. Only this container is asked, so certificates are not checked.
"""

import ssl
import sys
import urllib.request
from collections.abc import Sequence

URLS = ("http://127.0.0.1:9309/livez", "http://127.0.0.1:8080/livez", "https://127.0.0.1:8080/livez")
_TIMEOUT_S = 1.0


def lives(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S, context=_unchecked()) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(urls: Sequence[str] = URLS) -> int:
    return 0 if any(lives(url) for url in urls) else 1


if __name__ == "__main__":
    sys.exit(main())
