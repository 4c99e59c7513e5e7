"""Reads a folder of Kubernetes files as kustomize would: as much of it as ours use, so tests need no other program.

Names of config maps get no hash. `tests/deploy/test_kubernetes.py` compares it with the real one where that is there.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

Manifest = dict[str, Any]

_KEYS: Final = {
    "containers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""By what the entries of a list are merged. Other lists are replaced."""


def build(folder: Path) -> list[Manifest]:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects: list[Manifest] = []
    for name in settings["resources"]:
        path = folder / name
        objects += build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in settings.get("configMapGenerator", []):
        _generate(objects, generator, folder)
    for patch in settings.get("patches", []):
        objects = _patched(objects, yaml.safe_load((folder / patch["path"]).read_text()), patch.get("target"))
    for manifest in objects:
        _transform(manifest, settings)
    return objects


def containers(manifest: Manifest) -> list[Manifest]:
    """Those of the pods that it makes. Empty for what makes none."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return list(pod.get("containers", []))


def _generate(objects: list[Manifest], generator: Manifest, folder: Path) -> None:
    data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", [])}
    data |= dict(literal.split("=", 1) for literal in generator.get("literals", []))
    if generator.get("behavior") == "merge":
        (there,) = _named(objects, "ConfigMap", generator["name"])
        there["data"] |= data
    else:
        meta = {"name": generator["name"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def _patched(objects: list[Manifest], patch: Manifest, target: Manifest | None) -> list[Manifest]:
    target = target or {"kind": patch["kind"], "name": patch["metadata"]["name"]}
    hit = [each for each in objects if _is_target(each, target)]
    assert hit, f"a patch of nothing: {target}"
    if patch.get("$patch") == "delete":
        return [each for each in objects if each not in hit]
    changes = {key: value for key, value in patch.items() if key not in ("apiVersion", "kind", "metadata")}
    return [_merged(each, changes) if each in hit else each for each in objects]


def _is_target(manifest: Manifest, target: Manifest) -> bool:
    values = {"kind": manifest["kind"], "name": manifest["metadata"]["name"]}
    return all(re.fullmatch(pattern, values[key]) for key, pattern in target.items())


def _merged(below: Any, above: Any, field: str = "") -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        merged = dict(below)
        for key, value in above.items():
            merged[key] = _merged(below[key], value, key) if key in below else deepcopy(value)
        return merged
    if isinstance(below, list) and isinstance(above, list) and field in _KEYS:
        by_key = {entry[_KEYS[field]]: entry for entry in below}
        for entry in above:
            key = entry[_KEYS[field]]
            by_key[key] = _merged(by_key.get(key, {}), entry)
        return list(by_key.values())
    return deepcopy(above)


def _transform(manifest: Manifest, settings: Manifest) -> None:
    meta = manifest["metadata"]
    if "namespace" in settings:
        meta["namespace"] = settings["namespace"]
    for labels in settings.get("labels", []):
        meta["labels"] = {**meta.get("labels", {}), **labels["pairs"]}
    for replicas in settings.get("replicas", []):
        if meta["name"] == replicas["name"] and containers(manifest):
            manifest["spec"]["replicas"] = replicas["count"]
    for image in settings.get("images", []):
        for container in containers(manifest):
            name = container["image"].partition(":")[0]
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image['newTag']}"


def _named(objects: Iterable[Manifest], kind: str, name: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
