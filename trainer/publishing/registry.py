"""A registry of model packages: a folder or an object store. A package is immutable, and published whole or not at all.

    packages/<generation>/<file>   the package, as it is; a registry that is a folder is served from directly
    published/<generation>.json    written last, and only if it does not exist: with it the package is published

A publisher that is killed leaves files but no package. In an object store the next one writes the same files again,
under the same names. A folder is served from as it is, and a file that was half-written would make the package no
package: so there the files are written into a folder of this publisher's own, which is renamed when it is whole.
Owns the layout and the order of the writes; refuses to know why a package is good.
"""

import hashlib
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import obstore
from msgspec import Struct
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from encoders.errors import BadPackage
from encoders.package.manifest import MANIFEST_FILE, read_manifest
from encoders.package.model_package import ModelPackage, generation_of
from schemas.ids import Generation
from trainer.errors import BadRegistry

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PACKAGES: Final = "packages"
_PUBLISHED: Final = "published"
_ALLOWS_HTTP: Final = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
"""By which variable obstore takes an endpoint without TLS, by the scheme of the registry's URL. gs:// needs none."""
_RETRIES: Final = 4
_RETRY_TIME: Final = timedelta(seconds=30)
"""Instead of obstore's three minutes: where there are no credentials, it looks for them until this time is over."""
_ABANDONED_S: Final = 24 * 3600.0
"""What a publisher has not touched for so long is left over from one that was killed."""


class Publication(Struct, frozen=True):
    """What the registry knows of a package."""

    generation: str
    digest: str
    """Of nearline.json, which holds the digests of all other files."""
    published_at: str
    gate: dict[str, Any]
    """What the comparison with the serving package gave, or why there was none."""
    training: dict[str, Any] = {}


class Registry:
    """Any number of processes may use one at the same time. Every method raises BadRegistry."""

    def __init__(self, place: str) -> None:
        """`place`: a folder, or a URL such as s3://bucket/path, gs:// or az://, whose credentials obstore finds in the
        environment. A folder is made by the first package that is published to it."""
        if re.match(r"(s3|gs|az):(?!//)", place):
            raise BadRegistry(
                f"the registry {place} is neither a URL nor a folder; write a URL such as s3://BUCKET/PATH"
            )
        self.place = place
        self._folder = None if "://" in place else Path(place).absolute()
        self._opened: ObjectStore | None = None

    def exists(self) -> bool:
        """Always True for an object store."""
        with self._translated():
            return self._folder is None or self._folder.exists()

    def is_published(self, generation: str) -> bool:
        if not self.exists():
            return False
        with self._translated():
            try:
                obstore.head(self._store, _publication_path(generation))
            except FileNotFoundError:
                return False
        return True

    def refuse_published(self, generation: str) -> None:
        """Raises BadRegistry where this generation is published already: its name holds the package's digest, so it is
        the same package."""
        if self.is_published(generation):
            raise _already_published(self.place, generation)

    def publish(self, package: ModelPackage, gate: dict[str, Any]) -> Publication:
        """1. Writes every file; 2. nearline.json; 3. in a folder, gives them their place; 4. the publication. After a
        crash between any two there is no package."""
        generation = str(package.generation)
        self.refuse_published(generation)
        publication = Publication(
            generation,
            package.digest,
            datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            gate,
            package.manifest.training,
        )
        with self._translated():
            if self._folder is None:
                self._write_files(package, generation)
            else:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._place_in_folder(package, self._folder / _PACKAGES)
            body = msgspec.json.format(msgspec.json.encode(publication), indent=1)
            try:
                obstore.put(self._store, _publication_path(generation), body, mode="create")
            except AlreadyExistsError as error:
                raise _already_published(self.place, generation) from error
        return publication

    def _write_files(self, package: ModelPackage, name_of_folder: str) -> None:
        for name in (*sorted(package.manifest.files), MANIFEST_FILE):
            obstore.put(self._store, f"{_PACKAGES}/{name_of_folder}/{name}", package.folder / name)

    def _place_in_folder(self, package: ModelPackage, packages: Path) -> None:
        """The package's folder appears whole or not at all. Of several publishers at once the first one gives it its
        place; the package is the same. What a publisher of an earlier version left there half-written is replaced."""
        generation = str(package.generation)
        _remove_abandoned(packages)
        own_folder = f".{generation}-{uuid.uuid4().hex}"
        try:
            self._write_files(package, own_folder)
            if (packages / generation).exists() and not _is_whole(packages / generation, package):
                (packages / generation).rename(packages / f"{own_folder}-replaced")
            try:
                (packages / own_folder).rename(packages / generation)
            except OSError:
                if not _is_whole(packages / generation, package):
                    raise
        finally:
            for leftover in packages.glob(f"{own_folder}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def publications(self) -> list[Publication]:
        """Oldest first."""
        with self._translated():
            paths = [meta["path"] for batch in obstore.list(self._store, _PUBLISHED) for meta in batch]
        return sorted(map(self._read, paths), key=lambda listed: (listed.published_at, listed.generation))

    def show(self, generation: str) -> Publication:
        return self._read(_publication_path(generation))

    def verify(self, generation: str) -> Publication:
        """Reads every file again and compares its digest with what was published, which it returns. Nothing is kept of
        the files, neither on the disk nor in memory."""
        publication = self.show(generation)
        body = self._manifest(generation)
        if hashlib.sha256(body).hexdigest() != publication.digest:
            raise _damaged(self.place, generation, MANIFEST_FILE)
        manifest = read_manifest(body)
        self._refuse_other(generation, generation_of(manifest, publication.digest))
        for name, digest in manifest.files.items():
            read = hashlib.sha256()
            for piece in self._pieces(generation, name):
                read.update(piece)
            if read.hexdigest() != digest:
                raise _damaged(self.place, generation, name)
        return publication

    def size(self, generation: str) -> int:
        """Of the files of a published package, in bytes."""
        published = self.show(generation).generation
        with self._translated():
            files = (meta for batch in obstore.list(self._store, f"{_PACKAGES}/{published}") for meta in batch)
            return sum(meta["size"] for meta in files)

    def fetch(self, generation: str, folder: Path) -> ModelPackage:
        """Copies a published package into an empty folder and checks it. Raises BadPackage as well."""
        body = self._manifest(self.show(generation).generation)
        for name in (*read_manifest(body).files, MANIFEST_FILE):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as written:
                written.writelines(self._pieces(generation, name))
        package = ModelPackage.load(folder)
        self._refuse_other(generation, package.generation)
        return package

    def _refuse_other(self, generation: str, found: Generation) -> None:
        """What was copied by hand may have another package's name. Its processes would take one part of the name and
        another of the package."""
        if found != generation:
            raise BadRegistry(
                f"{self.place}: the package that is published as {generation} is {found}; take {generation} out"
            )

    @property
    def _store(self) -> "ObjectStore":
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> "ObjectStore":
        if self._folder is not None:
            if not self._folder.exists():
                raise BadRegistry(
                    f"there is no registry {self.place}; mend the path, or make one with: nearline models publish"
                )
            return LocalStore(self._folder)
        return from_url(self.place, retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME})

    def _read(self, path: str) -> Publication:
        with self._translated():
            try:
                body = bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError as error:
                name = path.removeprefix(f"{_PUBLISHED}/").removesuffix(".json")
                raise BadRegistry(f"{name} is not published in {self.place}; see: nearline models list") from error
        try:
            return msgspec.json.decode(body, type=Publication)
        except msgspec.DecodeError as error:
            raise BadRegistry(f"{self.place}: {path} is no publication: {error}; take it out") from error

    def _manifest(self, generation: str) -> bytes:
        return b"".join(self._pieces(generation, MANIFEST_FILE))

    def _pieces(self, generation: str, name: str) -> Iterator[bytes]:
        """A file of a package, some MB at a time: weights may be larger than the memory of who reads them."""
        with self._translated():
            try:
                for piece in obstore.get(self._store, f"{_PACKAGES}/{generation}/{name}").stream():
                    yield bytes(piece)
            except FileNotFoundError as error:
                raise _damaged(self.place, generation, name) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns obstore's errors into BadRegistry, by their classes."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise BadRegistry(
                f"the registry {self.place} does not let us: {_message(error)}; {self._access()}"
            ) from error
        except (BaseError, OSError, ValueError) as error:
            raise BadRegistry(
                f"the registry {self.place} cannot be used: {_message(error)}; {self._mend(error)}"
            ) from error

    def _access(self) -> str:
        return "check who owns the folder" if self._folder is not None else "check the credentials in the environment"

    def _mend(self, error: Exception) -> str:
        if self._folder is not None:
            return "name a folder that can be written"
        variable = _ALLOWS_HTTP.get(self.place.partition("://")[0])
        if variable is not None and "builder error" in str(error):
            return f"name an endpoint that begins with https://, or set {variable}=true in the environment"
        return "name s3://BUCKET/PATH, gs:// or az://, and check bucket, endpoint and credentials in the environment"


def _is_whole(folder: Path, package: ModelPackage) -> bool:
    try:
        return ModelPackage.load(folder).digest == package.digest
    except BadPackage:
        return False


def _remove_abandoned(packages: Path) -> None:
    """Removes what killed publishers left beside the packages. A running one touches its folder with each file."""
    oldest_s = time.time() - _ABANDONED_S
    for folder in packages.glob(".*"):
        with suppress(FileNotFoundError):  # another publisher removes it too
            if folder.stat().st_mtime < oldest_s:
                shutil.rmtree(folder, ignore_errors=True)


def _publication_path(generation: str) -> str:
    return f"{_PUBLISHED}/{generation}.json"


def _already_published(place: str, generation: str) -> BadRegistry:
    return BadRegistry(f"{generation} is published in {place} already; a package never changes")


def _damaged(place: str, generation: str, name: str) -> BadRegistry:
    return BadRegistry(f"{place}: {name} of {generation} is not the file that was published; do not serve it")


def _message(error: Exception) -> str:
    """In one line: the first line of obstore's text, and the message in the XML that S3's protocol answers with."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    s3_message = re.search("<Message>([^<]+)</Message>", text)
    line = text.partition("\n")[0].partition(": <?xml")[0].strip()
    return f"{line} ({s3_message[1]})" if s3_message else line
