"""When the retriever can be asked for a generation that has just become ready."""

import pytest

from nearline.ask.connections import Connections
from nearline.errors import NotReady
from nearline.gate import asking
from nearline.settings.settings import Settings
from schemas.ids import Generation
from tests.kit.data.embeddings import GENERATION
from tests.kit.instances import instance_without_stages


def test_what_is_not_open_is_waited_for_and_then_named() -> None:
    with instance_without_stages() as instance:
        connections = Connections(Settings(data_dir=instance.data_dir), lambda: instance.instance)
        asking.until_open(connections, [GENERATION], 0.0)
        with pytest.raises(NotReady, match="the retriever has not opened other-1 within 0 s; its log and /readyz say"):
            asking.until_open(connections, [GENERATION, Generation("other-1")], 0.0)
