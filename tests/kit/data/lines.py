"""Events as they are sent."""

import json


def line(event: object) -> bytes:
    return json.dumps(event).encode()
