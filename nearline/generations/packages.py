"""Where a generation's package lies on this machine. One that lies in a registry is fetched into the data folder.

Checks that it is the package that the log of the generations names. Knows no process.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from encoders.errors import BadPackage
from encoders.package.checked_files import CheckedFiles
from encoders.package.model_package import ModelPackage
from nearline.errors import PackageGone
from nearline.generations.free_room import free_here
from nearline.generations.room import Room, refuse_without_room
from nearline.settings.settings import Settings
from schemas.generations import GenerationRecord, PackageSource
from schemas.ids import Generation, is_generation_name

_FETCHING: Final = ".fetching"

log = structlog.get_logger(__name__)


def in_registry(registry: str) -> PackageSource:
    """A folder is named from the root, because other processes run elsewhere."""
    return PackageSource(registry=registry if "://" in registry else str(Path(registry).absolute()))


def packages_folder(data_dir: Path) -> Path:
    """Holds a folder for each package that was fetched, by its generation."""
    return data_dir / "packages"


def checked_files(data_dir: Path) -> CheckedFiles:
    """Which files of packages the processes of this data folder need not hash again."""
    return CheckedFiles(data_dir / "checked")


def load_named_package(settings: Settings) -> ModelPackage | None:
    """The package that the settings name, with every file checked. Raises BadPackage."""
    if settings.package is None:
        return None
    return ModelPackage.load(settings.package.absolute(), checked_files(settings.data_dir))


def package_folder(record: GenerationRecord, settings: Settings) -> Path:
    """Where the generation's package lies on this machine, or will lie when it was fetched."""
    # The demo's package moves with the installation, and a package may have moved to where --package says.
    named = settings.package_folder.absolute()
    if _digest(named) == record.digest:
        return named
    if record.package.registry is not None:
        return packages_folder(settings.data_dir) / record.id
    return Path(record.package.folder or "")


def package_here(record: GenerationRecord, settings: Settings) -> ModelPackage:
    """The generation's package on this machine. Fetches it if it lies in a registry and is not here yet.

    Only its nearline.json is checked, which holds the digests of all other files: whoever opens those checks them.
    Raises PackageGone, BadPackage, BadRegistry."""
    folder = package_folder(record, settings)
    if record.package.registry is not None and folder.parent == packages_folder(settings.data_dir):
        fetch_unless_here(record.id, record.package.registry, settings.data_dir)
    try:
        package = ModelPackage.read(folder)
    except BadPackage as error:
        raise PackageGone(record.id, str(error)) from error
    if package.digest != record.digest:
        raise PackageGone(record.id, f"{folder} holds {package.generation} now")
    return package


def remove_fetched(data_dir: Path, generation: Generation, until: datetime) -> bool:
    """Removes the package of a generation that does not live. What was fetched after `until` stays: somebody is about
    to build it. Returns False if nothing was removed, also where this is no generation's name but, say, a path."""
    if not is_generation_name(generation):
        return False
    folder, is_removed = packages_folder(data_dir), False
    for path in (folder / generation, folder / f"{generation}{_FETCHING}"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime <= until.timestamp():
                shutil.rmtree(path, ignore_errors=True)
                is_removed = True
    return is_removed


def fetch_unless_here(generation: Generation, registry: str, data_dir: Path) -> Path:
    """Whole or not at all: it is fetched into a folder beside, by one process at a time. Returns where it lies. Raises
    BadRegistry, BadPackage, NoRoom."""
    folder = packages_folder(data_dir) / generation
    with _alone(folder.parent):
        if not folder.exists():
            # Imported here: most instances have no registry.
            from trainer.publishing.registry import Registry

            beside = folder.with_name(f"{folder.name}{_FETCHING}")
            shutil.rmtree(beside, ignore_errors=True)
            published = Registry(registry)
            needed = Room(disk=published.size(generation))
            refuse_without_room(generation, "its package needs", needed, free_here(folder.parent), "make room")
            log.info("fetching the package", generation=generation, registry=registry)
            try:
                published.fetch(generation, beside)
                beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return folder


def _digest(folder: Path) -> str | None:
    try:
        return ModelPackage.read(folder).digest
    except BadPackage:
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other processes of this data folder wait here."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
