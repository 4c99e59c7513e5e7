"""A registry of model packages: a folder or an object store. Packages are immutable, and there whole or not at all.

    packages/<generation>/<file>   the package, as it is; a registry that is a folder is served from directly
    published/<generation>.json    written last, and only if it is not there: with it the package is published

Whatever a publisher that was killed left behind is no package; the next one writes the same files again, under the
same names. Owns the layout and its order; refuses to know why a package is good.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import obstore
from msgspec import Struct
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from encoders.manifest import MANIFEST_FILE, read_manifest
from encoders.packages import ModelPackage
from trainer.errors import BadRegistry

_PACKAGES: Final = "packages"
_PUBLISHED: Final = "published"


class Publication(Struct, frozen=True):
    """What the registry knows of a package."""

    generation: str
    digest: str
    """Of nearline.json, which holds those of all other files."""
    published_at: str
    gate: dict[str, Any]
    """What the comparison with the one before said, or why it was left out."""
    training: dict[str, Any] = {}


class Registry:
    """Any number of processes may use one at the same time. Every method raises BadRegistry."""

    def __init__(self, place: str) -> None:
        """`place`: a folder, or a URL such as s3://bucket/path, gs:// or az://, whose credentials obstore finds in the
        environment."""
        self.place = place
        with self._translated():
            if "://" in place:
                self._store = from_url(place)
            else:
                self._store = LocalStore(Path(place).absolute(), mkdir=True)

    def publish(self, package: ModelPackage, gate: dict[str, Any]) -> Publication:
        """1. every file; 2. nearline.json; 3. the publication. A crash between any two leaves no package."""
        generation = str(package.generation)
        self._refuse_published(generation)
        publication = Publication(
            generation,
            package.digest,
            datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            gate,
            package.manifest.training,
        )
        with self._translated():
            for name in (*sorted(package.manifest.files), MANIFEST_FILE):
                obstore.put(self._store, f"{_PACKAGES}/{generation}/{name}", package.folder / name)
            body = msgspec.json.format(msgspec.json.encode(publication), indent=1)
            try:
                obstore.put(self._store, _record(generation), body, mode="create")
            except AlreadyExistsError as error:
                raise _published(self.place, generation) from error
        return publication

    def publications(self) -> list[Publication]:
        """Oldest first."""
        with self._translated():
            paths = [meta["path"] for batch in obstore.list(self._store, _PUBLISHED) for meta in batch]
        return sorted(map(self._read, paths), key=lambda one: (one.published_at, one.generation))

    def show(self, generation: str) -> Publication:
        return self._read(_record(generation))

    def verify(self, generation: str) -> None:
        """Reads every file again and compares its digest with what was published."""
        publication = self.show(generation)
        body = self._get(generation, MANIFEST_FILE)
        if hashlib.sha256(body).hexdigest() != publication.digest:
            raise _damaged(self.place, generation, MANIFEST_FILE)
        for name, digest in read_manifest(body).files.items():
            if hashlib.sha256(self._get(generation, name)).hexdigest() != digest:
                raise _damaged(self.place, generation, name)

    def fetch(self, generation: str, folder: Path) -> ModelPackage:
        """Copies a published package into an empty folder, and checks it. Raises BadPackage too."""
        body = self._get(self.show(generation).generation, MANIFEST_FILE)
        for name in (*read_manifest(body).files, MANIFEST_FILE):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._get(generation, name))
        return ModelPackage.load(folder)

    def _refuse_published(self, generation: str) -> None:
        with self._translated():
            try:
                obstore.head(self._store, _record(generation))
            except FileNotFoundError:
                return
        raise _published(self.place, generation)

    def _read(self, path: str) -> Publication:
        with self._translated():
            body = bytes(obstore.get(self._store, path).bytes())
        try:
            return msgspec.json.decode(body, type=Publication)
        except msgspec.DecodeError as error:
            raise BadRegistry(f"{self.place}: {path} is no publication: {error}; take it out") from error

    def _get(self, generation: str, name: str) -> bytes:
        with self._translated():
            return bytes(obstore.get(self._store, f"{_PACKAGES}/{generation}/{name}").bytes())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BadRegistry(f"the registry {self.place} does not hold this: {_first_line(error)}") from error
        except (BaseError, OSError, ValueError) as error:
            raise BadRegistry(f"the registry {self.place} cannot be used: {_first_line(error)}") from error


def _record(generation: str) -> str:
    return f"{_PUBLISHED}/{generation}.json"


def _published(place: str, generation: str) -> BadRegistry:
    return BadRegistry(f"{generation} is published in {place} already; a package never changes")


def _damaged(place: str, generation: str, name: str) -> BadRegistry:
    return BadRegistry(f"{place}: {name} of {generation} is not the file that was published; do not serve it")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
