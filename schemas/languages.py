"""Language tags, in events and in filters. Two tags are equal only if they are the same text."""

import re
from typing import Final

LANGUAGE: Final = r"^[a-z]{2,3}(-[A-Za-z0-9]{1,8})*$"
"""The shape of a tag (BCP 47) that begins with a code of ISO 639."""
MAX_LANGUAGE_CHARS: Final = 35

is_language = re.compile(LANGUAGE).fullmatch
