from typing import Any

import msgspec
import pytest

from encoders.errors import BadPackage
from encoders.package.manifest import (
    BaseModel,
    Manifest,
    MeanForm,
    MemberTemplate,
    PostTemplate,
    PromptForm,
    Templates,
    default_special_tokens,
    number_fields,
    read_manifest,
    render_manifest,
    roles,
)

TABLE = [float(number) for number in range(99)]
TEMPLATES = Templates(PostTemplate(("language", "age", "count.like", "text")), MemberTemplate(history_ages=True))


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "id": "demo",
        "base_model": BaseModel("random"),
        "templates": TEMPLATES,
        "special_tokens": default_special_tokens(TEMPLATES, PromptForm()),
        "quantiles": dict.fromkeys(number_fields(TEMPLATES), TABLE),
        "dimensions": (32, 64),
        "dimension": 32,
    }
    return Manifest(**fields | changes)


def test_it_is_read_as_it_was_written() -> None:
    written = manifest(member_form=MeanForm(2.0, {"like": 0.5}, half_life_s=3600.0), training={"steps": 7})
    assert read_manifest(render_manifest(written)) == written


def test_a_role_has_its_token_only_where_a_template_needs_it() -> None:
    plain = Templates()
    assert roles(plain, MeanForm()) == ["text"]
    assert set(roles(plain, PromptForm())) >= {"text", "headline", "skills", "industry", "action.like", "action.wrote"}
    assert "instruction" in roles(Templates(PostTemplate(instruction="Find it.")), MeanForm())
    assert number_fields(TEMPLATES) == ["age", "count.like"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dimension": 48}, "dimension 48"),
        ({"special_tokens": {}}, "special_tokens lacks"),
        ({"quantiles": {"age": TABLE}}, "lacks a table for count.like"),
        ({"quantiles": {"age": TABLE, "count.like": TABLE[:5]}}, "99 boundaries"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        manifest(**change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "../up"}, "id"),
        ({"precision": "fp8"}, "precision"),
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"files": {"a": "abc"}}, "files"),
        ({"templates": {"post": {"fields": ["text", "age"]}}}, "ends with the field text"),
        ({"templates": {"post": {"fields": ["mood", "text"]}}}, "mood"),
        ({"templates": {"post": {"fields": ["age", "age", "text"]}}}, "twice"),
        ({"member_form": {"kind": "mean", "action_weights": {"hide": 1.0}}}, "hide"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(change: dict[str, Any], reason: str) -> None:
    fields = msgspec.json.decode(render_manifest(manifest())) | change
    with pytest.raises(BadPackage, match=reason):
        read_manifest(msgspec.json.encode(fields))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(BadPackage, match=r"nearline\.json"):
        read_manifest(b"{")
