import signal
import subprocess
import sys
from pathlib import Path

import pytest

from encoders.packages import ModelPackage
from tests.packages import make_tiny_package
from trainer.errors import BadRegistry
from trainer.registry import Registry

FORCED = {"forced": "a test"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("packages") / "one")


def child(place: Path, package: ModelPackage, *writes: int) -> subprocess.Popen[str]:
    arguments = [place, package.folder, *writes]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.trainer.publishing_child", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_published_is_listed_shown_and_whole(tmp_path: Path, package: ModelPackage) -> None:
    registry = Registry(str(tmp_path / "registry"))
    assert registry.publications() == []
    publication = registry.publish(package, FORCED)
    assert registry.publications() == [publication]
    assert registry.show(str(package.generation)).gate == FORCED
    registry.verify(str(package.generation))
    assert registry.fetch(str(package.generation), tmp_path / "copy").digest == package.digest
    assert ModelPackage.load(tmp_path / "registry" / "packages" / str(package.generation)).digest == package.digest


def test_a_package_is_published_once(tmp_path: Path, package: ModelPackage) -> None:
    registry = Registry(str(tmp_path))
    registry.publish(package, FORCED)
    with pytest.raises(BadRegistry, match=r"published in .* already"):
        registry.publish(package, {"forced": "another reason"})
    assert [one.gate for one in registry.publications()] == [FORCED]


def test_a_damaged_file_is_found(tmp_path: Path, package: ModelPackage) -> None:
    registry = Registry(str(tmp_path))
    registry.publish(package, FORCED)
    file = tmp_path / "packages" / str(package.generation) / "tokenizer.json"
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(BadRegistry, match=r"tokenizer\.json of .* is not the file that was published"):
        registry.verify(str(package.generation))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRegistry, match="nothing-00000000"):
        Registry(str(tmp_path)).show("nothing-00000000")


def test_one_that_is_killed_at_any_write_publishes_nothing_and_the_next_one_does(
    tmp_path: Path, package: ModelPackage
) -> None:
    num_writes = len(package.manifest.files) + 2
    children = {writes: child(tmp_path / str(writes), package, writes) for writes in (0, 1, num_writes - 1)}
    for writes, process in children.items():
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        registry = Registry(str(tmp_path / str(writes)))
        assert registry.publications() == []
        registry.publish(package, FORCED)
        registry.verify(str(package.generation))


def test_of_two_at_once_one_publishes(tmp_path: Path, package: ModelPackage) -> None:
    publishers = [child(tmp_path, package) for _ in range(3)]
    said = [publisher.communicate()[1] for publisher in publishers]
    assert sorted(publisher.returncode for publisher in publishers) == [0, 1, 1], said
    registry = Registry(str(tmp_path))
    assert len(registry.publications()) == 1
    registry.verify(str(package.generation))


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRegistry, match="cannot be used"):
        Registry(str(tmp_path / "file"))
