"""The file of a data folder that says in which forms it was written."""

import json
from pathlib import Path

import pytest

from nearline.errors import BadSettings
from nearline.settings.folder_forms import agree_on_folder_forms
from schemas.errors import NewerForm
from schemas.forms import IN_FOLDER, Form
from tests.kit.commands import run_command
from tests.kit.instances import NO_BROKER


def test_it_grows_and_never_shrinks(tmp_path: Path) -> None:
    agree_on_folder_forms(tmp_path)
    assert json.loads((tmp_path / "forms.json").read_text()) == {kind: form.written for kind, form in IN_FOLDER.items()}
    agree_on_folder_forms(tmp_path, {**IN_FOLDER, "rows": Form(newest=2, written=2)})
    assert json.loads((tmp_path / "forms.json").read_text())["rows"] == 2
    agree_on_folder_forms(tmp_path, {**IN_FOLDER, "rows": Form(newest=2, written=1)})
    assert json.loads((tmp_path / "forms.json").read_text())["rows"] == 2


@pytest.mark.parametrize("stored", ['{"rows": 7}', '{"graphs": 1}'])
def test_a_newer_folder_is_left_alone(tmp_path: Path, stored: str) -> None:
    (tmp_path / "forms.json").write_text(stored)
    with pytest.raises(NewerForm, match=f"the data folder {tmp_path} has .* of form"):
        agree_on_folder_forms(tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("forms.json", stored)]


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "forms.json").write_text("rows")
    with pytest.raises(BadSettings, match=r"forms\.json cannot be read .* remove it"):
        agree_on_folder_forms(tmp_path)


@pytest.mark.parametrize("command", [["up"], ["run", "contexts"]])
def test_nothing_starts_on_a_newer_folder(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "forms.json").write_text('{"rows": 7}')
    environment = {"NEARLINE_KAFKA__BOOTSTRAP_SERVERS": NO_BROKER}
    done = run_command([*command, "--data-dir", tmp_path], environment=environment)
    assert done.returncode == 1
    what = f"the data folder {tmp_path} has rows of form 7, and this version reads them up to form 1"
    mend = "nothing was changed: start the version of nearline that wrote it, or a newer one"
    assert done.stderr == f"nearline: {what}; {mend}\n"
    written = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert written == ["forms.json"]
