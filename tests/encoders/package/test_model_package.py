import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from encoders.encoder import Encoder
from encoders.errors import BadPackage, GoldenMismatch, PackageExists
from encoders.package.manifest import Golden, Manifest, read_manifest, render_manifest
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage, file_digest
from tests.kit.packages import make_tiny_package, poison


def change_manifest(folder: Path, **changes: object) -> Manifest:
    file = folder / "nearline.json"
    manifest = msgspec.structs.replace(read_manifest(file.read_bytes()), **changes)
    file.write_bytes(render_manifest(manifest))
    return manifest


def test_a_written_package_is_sound(package: ModelPackage) -> None:
    assert ModelPackage.load(package.folder) == package
    assert package.generation == f"tiny-{package.digest[:8]}"
    assert package.manifest.files[WEIGHTS_FILE] == file_digest(package.folder / WEIGHTS_FILE)
    assert len(package.manifest.goldens) == 3


def test_everyone_may_read_it(package: ModelPackage) -> None:
    modes = {oct(path.stat().st_mode & 0o777) for path in package.folder.rglob("*") if path.is_file()}
    assert modes == {"0o644"}


def test_the_same_recipe_gives_the_same_generation_and_another_one_another(tmp_path: Path) -> None:
    first, again, other = (make_tiny_package(tmp_path / str(i), seed=seed) for i, seed in enumerate((1, 1, 2)))
    assert first.generation == again.generation != other.generation


def test_a_package_is_never_overwritten(package: ModelPackage) -> None:
    with pytest.raises(PackageExists, match="never overwritten"):
        make_tiny_package(package.folder)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "encode_texts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_tiny_package(tmp_path / "packages" / "tiny")
    assert list((tmp_path / "packages").iterdir()) == []


def test_a_folder_without_nearline_json_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="no model package"):
        ModelPackage.load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    body = bytearray((copy / name).read_bytes())
    body[-2] ^= 1
    (copy / name).write_bytes(body)
    with pytest.raises(BadPackage, match=name):
        ModelPackage.load(copy)


def test_a_lost_file_is_refused(copy: Path) -> None:
    (copy / WEIGHTS_FILE).unlink()
    with pytest.raises(BadPackage, match=f"lacks {WEIGHTS_FILE}"):
        ModelPackage.load(copy)


@pytest.mark.parametrize("name", ["adapter_config.json", "modeling_llama.py", "1_Pooling/more.json"])
def test_a_file_that_nobody_listed_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_text("{}")
    with pytest.raises(BadPackage, match=f"{name}, which nearline.json does not list"):
        ModelPackage.load(copy)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.PT", "custom.py"])
def test_what_could_run_code_is_refused_even_when_listed(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    files = ModelPackage.read(copy).manifest.files | {name: file_digest(copy / name)}
    change_manifest(copy, files=files)
    with pytest.raises(BadPackage, match="could run code"):
        ModelPackage.load(copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret"])
def test_a_path_cannot_leave_the_package(copy: Path, name: str) -> None:
    (copy.parent / "secret").write_text("x")
    change_manifest(copy, files=ModelPackage.read(copy).manifest.files | {name: "0" * 64})
    with pytest.raises(BadPackage, match="leaves the package"):
        ModelPackage.load(copy)


def test_a_link_cannot_leave_the_package(copy: Path) -> None:
    outside = copy.parent / "outside.safetensors"
    (copy / WEIGHTS_FILE).rename(outside)
    (copy / WEIGHTS_FILE).symlink_to(outside)
    with pytest.raises(BadPackage, match="link that leaves"):
        ModelPackage.load(copy)


@pytest.mark.parametrize("name", ["3_Dense", "nearline.json"])
def test_neither_a_linked_folder_nor_a_linked_manifest_leads_out(copy: Path, name: str) -> None:
    outside = copy.parent / "outside"
    if name == "nearline.json":
        (copy / name).rename(outside)
    else:
        outside.mkdir()
    (copy / name).symlink_to(outside)
    with pytest.raises(BadPackage, match=f"{name}, which nearline.json does not list|{name} is a link that leaves"):
        ModelPackage.load(copy)


@pytest.mark.parametrize(
    "change", [{"path": "../outside"}, {"path": "/etc"}, {"type": "os.system"}, {"type": "evil.Evil"}]
)
def test_modules_name_no_other_code_and_no_other_folder(copy: Path, change: dict[str, str]) -> None:
    modules = json.loads((copy / "modules.json").read_bytes())
    modules[1] |= change
    relist(copy, "modules.json", modules)
    with pytest.raises(BadPackage, match=r"modules\.json names other modules"):
        ModelPackage.load(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_package_is_refused(copy: Path, name: str) -> None:
    relist(copy, name, {**json.loads((copy / name).read_bytes()), "auto_map": {"AutoModel": "evil.Evil"}})
    with pytest.raises(BadPackage, match=rf"{name} asks for code"):
        ModelPackage.load(copy)


def test_a_pickle_under_the_name_of_safetensors_is_not_read(copy: Path, tmp_path: Path) -> None:
    (copy / WEIGHTS_FILE).write_bytes(poison(tmp_path / "ran"))
    change_manifest(
        copy, files=ModelPackage.read(copy).manifest.files | {WEIGHTS_FILE: file_digest(copy / WEIGHTS_FILE)}
    )
    with pytest.raises(BadPackage, match="no readable safetensors"):
        Encoder.load(copy, device="cpu")
    assert not (tmp_path / "ran").exists()


def relist(folder: Path, name: str, content: object) -> None:
    """Changes a JSON file as the package's own author could."""
    (folder / name).write_text(json.dumps(content))
    change_manifest(folder, files=ModelPackage.read(folder).manifest.files | {name: file_digest(folder / name)})


def test_other_golden_vectors_are_refused(copy: Path) -> None:
    first, second, *rest = ModelPackage.read(copy).manifest.goldens
    change_manifest(copy, goldens=[Golden(first.text, second.vector), second, *rest])
    with pytest.raises(GoldenMismatch, match="A short text"):
        Encoder.load(copy, device="cpu")


def test_another_setting_of_the_model_is_caught_by_the_goldens(copy: Path) -> None:
    config = (copy / "config.json").read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 3.0')
    (copy / "config.json").write_text(config)
    files = ModelPackage.read(copy).manifest.files
    change_manifest(copy, files=files | {"config.json": file_digest(copy / "config.json")})
    with pytest.raises(GoldenMismatch):
        Encoder.load(copy, device="cpu")


def test_reading_a_package_needs_no_torch(package: ModelPackage) -> None:
    code = (
        "import sys; from pathlib import Path; from encoders.package.model_package import ModelPackage\n"
        f"print(ModelPackage.load(Path({str(package.folder)!r})).generation)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, package.generation), done.stderr
