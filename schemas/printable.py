"""What a stranger sent, for a line of a terminal, a log or a dead letter's cause."""


def printable(text: str, most_chars: int) -> str:
    """Cut to `most_chars`, the sign of the cut included; what moves a terminal's cursor is escaped."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: most_chars + 1])
    return shown if len(shown) <= most_chars else f"{shown[: most_chars - 1]}…"
