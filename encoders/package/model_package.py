"""Model packages: immutable folders that stock sentence-transformers loads, with nearline.json beside the weights.

Owns what a valid folder is: paths, files, digests, the generation's name. Imports no torch and runs no model:
`encoders.encoder` checks the golden vectors.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from encoders.errors import BadPackage
from encoders.package.checked_files import CheckedFiles, file_states
from encoders.package.manifest import MANIFEST_FILE, Manifest, MemberForm, Precision, read_manifest
from schemas.ids import Generation

WEIGHTS_FILE: Final = "model.safetensors"
TOKENIZER_FILE: Final = "tokenizer.json"
CONFIG_FILE: Final = "config.json"
MODULES_FILE: Final = "modules.json"
MODULES: Final = (
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    ("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
)
"""Folder and class, in the order in which sentence-transformers applies them."""
_REQUIRED: Final = (WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE, MODULES_FILE)
_CONFIGS: Final = (CONFIG_FILE, "tokenizer_config.json")
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".py")


@dataclass(frozen=True)
class ModelPackage:
    """Make one with `load`, or with `read` where only the manifest is needed."""

    folder: Path
    manifest: Manifest
    digest: str
    """SHA-256 of nearline.json, which holds the digests of all other files."""

    @classmethod
    def read(cls, folder: Path) -> "ModelPackage":
        """Reads nearline.json alone. Raises BadPackage."""
        try:
            if not _is_inside(folder, folder / MANIFEST_FILE):
                raise BadPackage(f"{folder}: {MANIFEST_FILE} is a link that leaves the package")
            body = (folder / MANIFEST_FILE).read_bytes()
        except OSError as error:
            raise BadPackage(f"{folder} is no model package: it has no readable {MANIFEST_FILE}") from error
        return cls(folder, read_manifest(body), hashlib.sha256(body).hexdigest())

    @classmethod
    def load(cls, folder: Path, checked: CheckedFiles | None = None) -> "ModelPackage":
        """Reads nearline.json and checks every file against it. Files that `checked` knows in this state are not hashed
        again. Raises BadPackage."""
        package = cls.read(folder)
        _check_names(folder, package.manifest.files)
        package._check_digests(checked)
        _check_contents(folder)
        return package

    def check_layout(self) -> None:
        """Everything but the digests. Raises BadPackage."""
        _check_names(self.folder, self.manifest.files)
        _check_contents(self.folder)

    def _check_digests(self, checked: CheckedFiles | None) -> None:
        digests = self.manifest.files
        states = file_states(self.folder, digests)
        if checked is not None and checked.has(self.folder, self.digest, states):
            return
        for name, digest in digests.items():
            if file_digest(self.folder / name) != digest:
                raise BadPackage(f"{self.folder}: {name} is not the file that was recorded; copy the package again")
        if checked is not None:
            checked.remember(self.folder, self.digest, states)

    @property
    def generation(self) -> Generation:
        return generation_of(self.manifest, self.digest)

    @property
    def dimension(self) -> int:
        return self.manifest.dimension

    @property
    def precision(self) -> Precision:
        return self.manifest.precision

    @property
    def member_form(self) -> MemberForm:
        return self.manifest.member_form


def generation_of(manifest: Manifest, digest: str) -> Generation:
    """The name holds the digest, so two different packages are never the same generation."""
    return Generation(f"{manifest.id}-{digest[:8]}")


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Every file but nearline.json, as relative paths with slashes, sorted."""
    # A link to a folder is not followed but returned like a file: so a link that the manifest does not list is found.
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != MANIFEST_FILE)


def _check_names(folder: Path, digests: dict[str, str]) -> None:
    if missing := [name for name in _REQUIRED if name not in digests]:
        raise BadPackage(f"{folder}: {MANIFEST_FILE} lists no {', '.join(missing)}; write the package again")
    for name in digests:
        _check_path(folder, name)
    if unlisted := [name for name in list_files(folder) if name not in digests]:
        raise BadPackage(f"{folder} holds {unlisted[0]}, which {MANIFEST_FILE} does not list; take it out")


def _check_path(folder: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadPackage(f"{folder}: {MANIFEST_FILE} lists {name!r}, which leaves the package")
    if path.suffix.lower() in _PICKLES:
        raise BadPackage(
            f"{folder} holds {name}, which could run code when it is read; only safetensors may hold weights"
        )
    if not (folder / name).is_file():
        raise BadPackage(f"{folder} lacks {name}; copy the package again")
    if not _is_inside(folder, folder / name):
        raise BadPackage(f"{folder}: {name} is a link that leaves the package")


def _is_inside(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _check_contents(folder: Path) -> None:
    _check_modules(folder)
    for name in _CONFIGS:
        _check_no_code(folder, name)


def _check_modules(folder: Path) -> None:
    """nearline does not read this file, but sentence-transformers imports the classes and opens the folders in it."""
    modules = _read_json(folder, MODULES_FILE)
    listed = [(entry.get("path"), entry.get("type")) for entry in modules if isinstance(entry, dict)] if modules else []
    if listed != list(MODULES):
        raise BadPackage(f"{folder}: {MODULES_FILE} names other modules than nearline writes; write the package again")


def _check_no_code(folder: Path, name: str) -> None:
    """nearline runs no code of a package, but another program that opens the folder could."""
    config = _read_json(folder, name) if (folder / name).exists() else {}
    if not isinstance(config, dict) or "auto_map" in config:
        raise BadPackage(f"{folder}: {name} asks for code that comes with the package (auto_map); take it out")


def _read_json(folder: Path, name: str) -> Any:
    try:
        return msgspec.json.decode((folder / name).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPackage(f"{folder}: {name} cannot be read: {error}") from error
