"""How commands reach the retriever over gRPC: the one of the data folder, with a certificate for another name than this
machine's, or one elsewhere."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearline.ask.connections import Connections
from nearline.errors import BadSettings, NotReady
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from retriever.errors import RetrieverUnavailable
from retriever.settings import ServeSettings
from tests.kit.certificates import Certificate, certificate
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post


def connections(serve: ServeSettings, url: str | None = None, grpc: str | None = None) -> Connections:
    """Of an instance whose retriever listens there."""
    instance = Instance(os.getpid(), "", GENERATION, "", None, url, True, [], "2026-01-05T10:00:00Z", grpc=grpc)
    return Connections(Settings(serve=serve), lambda: instance)


def served(files: Certificate) -> Served:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9))
    return Served(retriever, **files.settings())


@pytest.fixture(params=["retriever.example", "*.retriever.example", "10.0.0.7"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, Certificate]]:
    """A retriever on this machine that others reach by this name."""
    files = certificate(tmp_path, request.param)
    with served(files) as service:
        yield service, files


def test_the_certificate_of_the_data_folder_is_believed_for_whatever_name_it_is(
    own: tuple[Served, Certificate],
) -> None:
    service, files = own
    to = connections(ServeSettings.model_validate(files.settings()), service.url, service.grpc)
    with to.candidates() as client:
        assert client.retrieve(member_id="m").post_ids == ("a",)


def test_another_certificate_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other", "retriever.example")
    with served(certificate(tmp_path, "retriever.example")) as service:
        to = connections(ServeSettings.model_validate(other.settings()), service.url, service.grpc)
        with pytest.raises(RetrieverUnavailable, match=f"the retriever at {service.url} cannot be asked for its"):
            to.candidates()


def test_a_retriever_that_does_not_listen_yet_is_waited_for() -> None:
    with pytest.raises(NotReady, match="does not listen yet"):
        connections(ServeSettings()).candidates()


@pytest.mark.parametrize(
    ("serve", "address"),
    [
        ({"url": "http://127.0.0.1:1"}, "127.0.0.1:2"),
        ({"url": "http://127.0.0.1:1/"}, "127.0.0.1:2"),
        ({"url": "http://127.0.0.1:1", "grpc_url": "127.0.0.1:3"}, "127.0.0.1:3"),
        ({"url": "http://[::1]:1"}, "[::1]:2"),
    ],
)
def test_a_retriever_elsewhere_listens_at_the_next_port_unless_another_is_named(
    serve: dict[str, str], address: str
) -> None:
    to = connections(ServeSettings.model_validate(serve))
    with (
        to.candidates() as client,
        pytest.raises(RetrieverUnavailable, match=re.escape(f"the retriever at {address} ")),
    ):
        client.retrieve(member_id="m", timeout_s=20.0)


def test_an_address_without_a_port_needs_the_other_one_too() -> None:
    with pytest.raises(BadSettings, match=r"serve\.grpc_url: name where the retriever listens for gRPC"):
        connections(ServeSettings(url="https://retriever.example")).candidates()
