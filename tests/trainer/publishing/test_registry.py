"""One contract for a registry in a folder and in an object store: a real S3 server, in this process."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer

from encoders.errors import BadPackage
from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import ModelPackage
from tests.kit.packages import make_tiny_package
from trainer.errors import BadRegistry
from trainer.publishing import registry as registry_module
from trainer.publishing.registry import Registry

FORCED = {"forced": "a test"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("packages") / "one")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", host)
            httpx.put(f"http://{host}:{port}/bucket").raise_for_status()
            yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a registry that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "registry")
    request.getfixturevalue("s3")
    return f"s3://bucket/{tmp_path.name}"


def child(place: str, package: ModelPackage, *kills: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kit.children.publish", place, str(package.folder), *kills],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_published_is_listed_shown_and_whole(place: str, tmp_path: Path, package: ModelPackage) -> None:
    registry = Registry(place)
    publication = registry.publish(package, FORCED)
    assert registry.publications() == [publication]
    assert registry.show(str(package.generation)).gate == FORCED
    registry.verify(str(package.generation))
    assert registry.fetch(str(package.generation), tmp_path / "copy").digest == package.digest
    files = [file for file in (tmp_path / "copy").rglob("*") if file.is_file()]
    assert registry.size(str(package.generation)) == sum(file.stat().st_size for file in files)


def test_a_folder_is_served_from_as_it_is(tmp_path: Path, package: ModelPackage) -> None:
    Registry(str(tmp_path / "registry")).publish(package, FORCED)
    assert ModelPackage.load(tmp_path / "registry" / "packages" / str(package.generation)).digest == package.digest


def test_a_package_is_published_once(place: str, package: ModelPackage) -> None:
    registry = Registry(place)
    registry.publish(package, FORCED)
    with pytest.raises(BadRegistry, match=r"published in .* already"):
        registry.publish(package, {"forced": "another reason"})
    assert [publication.gate for publication in registry.publications()] == [FORCED]


def test_of_two_that_saw_nothing_published_the_store_takes_one(
    place: str, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "refuse_published", lambda *_: None)
    registry = Registry(place)
    registry.publish(package, FORCED)
    with pytest.raises(BadRegistry, match=r"published in .* already"):
        registry.publish(package, {"forced": "another reason"})
    assert [publication.gate for publication in registry.publications()] == [FORCED]


@pytest.mark.parametrize(
    "damage", [lambda body: body.replace(b"a", b"b", 1), lambda body: body[:-1], None], ids=["changed", "cut", "gone"]
)
def test_a_damaged_file_is_found(
    place: str, tmp_path: Path, package: ModelPackage, damage: Callable[[bytes], bytes] | None
) -> None:
    registry = Registry(place)
    registry.publish(package, FORCED)
    file = f"packages/{package.generation}/tokenizer.json"
    if damage is None:
        obstore.delete(registry._store, file)
    else:
        obstore.put(registry._store, file, damage(bytes(obstore.get(registry._store, file).bytes())))
    with pytest.raises(BadRegistry, match=r"tokenizer\.json of .* is not the file that was published"):
        registry.verify(str(package.generation))


def test_a_package_under_the_name_of_another_is_found(place: str, tmp_path: Path, package: ModelPackage) -> None:
    registry, generation = Registry(place), package.generation
    registry.publish(package, FORCED)
    for name in (*package.manifest.files, MANIFEST_FILE):
        obstore.put(registry._store, f"packages/other-1/{name}", package.folder / name)
    published = obstore.get(registry._store, f"published/{generation}.json").bytes()
    obstore.put(registry._store, "published/other-1.json", published)
    for use in (registry.verify, lambda name: registry.fetch(name, tmp_path / "copy")):
        with pytest.raises(BadRegistry, match=rf"published as other-1 is {generation}; take other-1 out"):
            use("other-1")
    registry.verify(generation)


def test_weights_may_be_larger_than_the_memory_of_who_reads_them(tmp_path: Path, package: ModelPackage) -> None:
    registry, generation, size = Registry(str(tmp_path / "registry")), str(package.generation), 128 << 20
    registry.publish(package, FORCED)
    with (tmp_path / "registry" / "packages" / generation / "model.safetensors").open("r+b") as weights:
        weights.truncate(size)
    tracemalloc.start()
    try:
        with pytest.raises(BadRegistry, match="is not the file that was published"):
            registry.verify(generation)
        with pytest.raises(BadPackage, match="is not the file that was recorded"):
            registry.fetch(generation, tmp_path / "copy")
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy" / "model.safetensors").stat().st_size == size


def test_what_is_not_published_is_named(place: str, package: ModelPackage) -> None:
    registry = Registry(place)
    registry.publish(package, FORCED)
    for ask in (registry.show, registry.verify):
        with pytest.raises(BadRegistry, match=r"nothing-00000000 is not published in .*; see: nearline models list"):
            ask("nothing-00000000")


def test_one_that_is_killed_at_any_write_publishes_nothing_and_the_next_one_does(
    place: str, package: ModelPackage
) -> None:
    """Before every write, and of a folder also within every one."""
    out, err = child(place, package, "kills").communicate()
    kills = [json.loads(line) for line in out.splitlines()]
    assert {kill["write"] for kill in kills} == set(range(len(package.manifest.files) + 2)), err
    for kill in kills:
        assert os.WTERMSIG(kill["status"]) == (signal.SIGXFSZ if kill["within"] else signal.SIGKILL), kill
        registry = Registry(kill["place"])
        assert not registry.exists() or registry.publications() == [], kill
        registry.publish(package, FORCED)
        registry.verify(str(package.generation))
        assert len(registry.publications()) == 1
        if "://" not in place:
            served = ModelPackage.load(Path(kill["place"]) / "packages" / str(package.generation))
            assert served.digest == package.digest, "a folder is served from as it is"


def half_written(registry: Path, name: str, package: ModelPackage) -> Path:
    """As a publisher leaves it that is killed within a write: object_store writes beside the file."""
    folder = registry / "packages" / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes((package.folder / "tokenizer.json").read_bytes())
    (folder / "model.safetensors#1").write_bytes(b"half")
    return folder


def test_what_an_earlier_version_left_half_written_is_replaced(tmp_path: Path, package: ModelPackage) -> None:
    place = half_written(tmp_path, str(package.generation), package)
    Registry(str(tmp_path)).publish(package, FORCED)
    assert ModelPackage.load(place).digest == package.digest
    assert [folder.name for folder in place.parent.iterdir()] == [str(package.generation)]


def test_what_a_killed_publisher_left_is_removed_after_a_day(tmp_path: Path, package: ModelPackage) -> None:
    old, new = (half_written(tmp_path, name, package) for name in (".p-old", ".p-new"))
    day_ago = time.time() - 25 * 3600
    os.utime(old, (day_ago, day_ago))
    Registry(str(tmp_path)).publish(package, FORCED)
    assert (old.exists(), new.exists()) == (False, True), "the new one may belong to a publisher that is at work"


def test_of_three_at_once_one_publishes(tmp_path: Path, package: ModelPackage) -> None:
    publishers = [child(str(tmp_path), package) for _ in range(3)]
    errors = [publisher.communicate()[1] for publisher in publishers]
    assert sorted(publisher.returncode for publisher in publishers) == [0, 1, 1], errors
    registry = Registry(str(tmp_path))
    assert len(registry.publications()) == 1
    registry.verify(str(package.generation))


def test_a_missing_folder_is_said_and_not_made(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registri"))
    for ask in (registry.publications, lambda: registry.show("p-0"), lambda: registry.verify("p-0")):
        with pytest.raises(BadRegistry, match=r"there is no registry .*registri; mend the path, or make one"):
            ask()
    assert not (tmp_path / "registri").exists()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path, package: ModelPackage) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(str(tmp_path / "file"))
    for use in (registry.publications, lambda: registry.publish(package, FORCED)):
        with pytest.raises(BadRegistry, match=r"file cannot be used: .*; name a folder that can be written") as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "[Errno" not in str(caught.value)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket/models", "The specified bucket does not exist"),
        ("ftp://bucket/models", "Unable to recognise URL"),
        ("s3://", "Unable to recognise URL"),
    ],
)
def test_a_wrong_object_store_is_one_sentence(url: str, words: str, package: ModelPackage) -> None:
    registry = Registry(url)
    for use in (registry.publications, lambda: registry.publish(package, FORCED)):
        with pytest.raises(BadRegistry, match=f"the registry {url} cannot be used: .*{words}.*; name s3://") as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variable", "endpoint"),
    [
        ("s3://bucket/models", "AWS_ALLOW_HTTP", {**environment("http://127.0.0.1:1"), "AWS_ALLOW_HTTP": "false"}),
        (
            "az://container/models",
            "AZURE_ALLOW_HTTP",
            {
                "AZURE_ENDPOINT": "http://127.0.0.1:1",
                "AZURE_STORAGE_ACCOUNT_NAME": "nobody",
                "AZURE_SKIP_SIGNATURE": "true",
            },
        ),
    ],
)
def test_an_endpoint_without_tls_is_told_from_one_that_is_away(
    url: str, variable: str, endpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_RETRIES", 0)
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadRegistry, match=rf"begins with https://, or set {variable}=true in the environment$"):
        Registry(url).publications()
    monkeypatch.setenv(variable, "true")
    with pytest.raises(BadRegistry, match="error sending request; name s3://"):
        Registry(url).publications()


def test_an_object_store_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry_module, "_RETRIES", 0)
    with pytest.raises(BadRegistry, match=r"error sending request; name s3://.*, and check bucket, endpoint and cred"):
        Registry("s3://bucket/models").publications()
