"""The names of processes, and what they say."""

import pytest

from nearline.errors import BadSettings
from nearline.settings.process_names import ProcessName, parse
from nearline.settings.settings import Settings
from nearline.up.names import all_names, check_name, of_version
from retriever.settings import ServeSettings
from schemas.ids import ContextVersion
from schemas.topics import FIRST_CONTEXTS
from streams.settings import ContextsSettings, EncodeSettings


def test_a_name_is_made_of_what_it_says() -> None:
    assert parse("encode-green-3") == ProcessName("encode", "green", "3")
    assert parse("encode-green-3").group == parse("encode-green-0").group == "encode-green"
    assert (parse("cold-blue").place, parse("contexts-0").group, parse("serve").slot) == ("blue", "contexts", None)
    assert parse("contexts-v2-0") == ProcessName("contexts", None, "0", ContextVersion(2))
    assert parse("contexts-v2-0").group == parse("contexts-v2-1").group == "contexts-v2"
    assert of_version("contexts-1", ContextVersion(2)) == str(check_name("contexts-v2-1")) == "contexts-v2-1"
    assert of_version("contexts-v2-1", FIRST_CONTEXTS) == "contexts-1"


def test_every_process_of_an_instance_has_a_name_that_is_taken() -> None:
    settings = Settings(
        contexts=ContextsSettings(workers=2), encode=EncodeSettings(workers=2), serve=ServeSettings(workers=2)
    )
    names = all_names(settings)
    assert [str(check_name(name)) for name in names] == names
    assert set(names) == {
        *("contexts-0", "contexts-1", "trending", "autopilot", "monitor", "serve-0", "serve-1"),
        *("encode-blue-0", "encode-blue-1", "cold-blue", "encode-green-0", "encode-green-1", "cold-green"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "broker",
        "encode-0",
        "encode-red-0",
        "cold",
        "cold-blue-1",
        "trending-0",
        "autopilot-0",
        "monitor-0",
        "serve-x",
        "contexts-v1-0",
        "contexts-v2-x",
        "encode-v2-0",
        "serve-v2-0",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadSettings, match=f"^{name} is no process; there are, for example: contexts-0, "):
        check_name(name)
