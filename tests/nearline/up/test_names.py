"""The processes of an instance, by their names."""

import pytest

from nearline.errors import BadSettings
from nearline.settings.settings import Settings
from nearline.up.names import ProcessName, check_name, names_of_all_generations
from retriever.settings import ServeSettings


@pytest.mark.parametrize(
    ("workers", "names"), [(1, ["serve"]), (3, ["serve-0", "serve-1", "serve-2"])], ids=["one", "several"]
)
def test_several_processes_of_the_retriever_have_slots(workers: int, names: list[str]) -> None:
    settings = Settings(serve=ServeSettings(workers=workers))
    assert [name for name in names_of_all_generations(settings) if name.startswith("serve")] == names
    assert all(check_name(name, settings).stage == "serve" for name in names)
    assert check_name(names[-1], settings) == ProcessName("serve", None, None if workers == 1 else "2")
    with pytest.raises(BadSettings, match=r"^serve-3 is no process; there are: "):
        check_name("serve-3", settings)
