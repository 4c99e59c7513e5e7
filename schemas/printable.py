"""Makes text from outside safe for a terminal, a log line or the cause of a dead letter."""


def printable(text: str, max_chars: int) -> str:
    """At most `max_chars` characters; text that is cut ends with an ellipsis. Control characters are escaped."""
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: max_chars + 1])
    return escaped if len(escaped) <= max_chars else f"{escaped[: max_chars - 1]}…"
