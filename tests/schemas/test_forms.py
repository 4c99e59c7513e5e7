"""What a version says of what a newer one has stored, and what it writes down itself."""

import pytest

from schemas.errors import NewerForm
from schemas.forms import IN_FOLDER, IN_KAFKA, Form, refuse_newer, to_write_down

KNOWN = {"rows": Form(newest=2, written=1), "lists": Form()}


@pytest.mark.parametrize("stored", [{}, {"rows": 1}, {"rows": 2, "lists": 1}])
def test_what_is_not_newer_is_read(stored: dict[str, int]) -> None:
    refuse_newer("the folder", stored, KNOWN)


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        ({"rows": 3}, "rows of form 3, and this version reads them up to form 2"),
        ({"rows": 1, "graphs": 1}, "graphs of form 1, which this version does not know"),
    ],
)
def test_what_is_newer_or_unknown_is_one_sentence(stored: dict[str, int], what: str) -> None:
    with pytest.raises(NewerForm) as raised:
        refuse_newer("the folder", stored, KNOWN)
    mend = "nothing was changed: start the version of nearline that wrote it, or a newer one"
    assert str(raised.value) == f"the folder has {what}; {mend}"


def test_only_what_grows_is_written_down() -> None:
    assert to_write_down({}, KNOWN) == {"rows": 1, "lists": 1}
    assert to_write_down({"rows": 2}, KNOWN) == {"lists": 1}, "a newer version wrote these rows, and was rolled back"
    assert to_write_down({"rows": 1, "lists": 1}, {**KNOWN, "rows": Form(2, 2)}) == {"rows": 2}


def test_what_is_written_can_be_read() -> None:
    assert all(1 <= form.written <= form.newest for form in (*IN_FOLDER.values(), *IN_KAFKA.values()))
