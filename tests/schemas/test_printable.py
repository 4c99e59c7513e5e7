from schemas.printable import printable


def test_what_moves_a_cursor_is_escaped_and_what_is_long_is_cut() -> None:
    assert printable("grün, \x1b[31m\x9b\n", 40) == "grün, \\x1b[31m\\x9b\\n"
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("x" * 11, 10) == "x" * 9 + "…"
    assert printable("\x1b" * 10**6, 10) == "\\x1b\\x1b\\…"
