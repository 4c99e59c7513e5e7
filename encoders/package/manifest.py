"""nearline.json: what a model package says about itself, as typed data that is checked when it is read.

Imports no torch: commands read it too. It knows nothing of where the folder is.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from encoders.errors import BadPackage
from encoders.package.quantiles import check_table
from schemas.contexts import COUNTED_ACTIONS
from schemas.embeddings import Vector

MANIFEST_FILE: Final = "nearline.json"
HISTORY_ACTIONS: Final = ("click", "like", "comment", "share", "follow", "dwell", "wrote")
PROFILE_FIELDS: Final = ("headline", "skills", "industry", "language")
POST_FIELDS: Final = (
    "author",
    "language",
    "age",
    *(f"count.{action}" for action in COUNTED_ACTIONS),
    *(f"rate.{action}" for action in COUNTED_ACTIONS),
    "text",
)
"""`age` is in seconds, `rate.*` in actions per hour; both relative to the context's `as_of`."""

Precision = Literal["fp32", "bf16"]
PoolingMode = Literal["mean", "last"]
_Positive = Annotated[int, Meta(ge=1)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def _check_fields(side: str, fields: tuple[str, ...], known: tuple[str, ...]) -> None:
    if unknown := [field for field in fields if field not in known]:
        raise ValueError(f"the {side} template names no known field: {', '.join(unknown)}")
    if len(set(fields)) != len(fields):
        raise ValueError(f"the {side} template names a field twice")


class BaseModel(Struct, frozen=True, forbid_unknown_fields=True):
    """What the weights were made from; the digest is of its weight files, or None for a model made from nothing."""

    name: str
    sha256: _Digest | None = None


class PostTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """Each field is its special token and then its value; `text` comes last, so that only it is ever cut."""

    fields: tuple[str, ...] = ("text",)
    instruction: str = ""
    """Begins every prompt of this side, after the special token `instruction`."""

    def __post_init__(self) -> None:
        _check_fields("post", self.fields, POST_FIELDS)
        if self.fields[-1:] != ("text",):
            raise ValueError("the post template ends with the field text")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The fields that need a quantile table."""
        return tuple(field for field in self.fields if field == "age" or "." in field)


class MemberTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """The profile block, then history, newest last; each entry begins with its action's special token.

    The form `mean` uses the profile's fields alone, as one text.
    """

    profile: tuple[str, ...] = ("headline", "skills", "industry")
    instruction: str = ""
    history_ages: bool = False
    """Each entry also says its age as a percentile."""

    def __post_init__(self) -> None:
        _check_fields("member", self.profile, PROFILE_FIELDS)


class Templates(Struct, frozen=True, forbid_unknown_fields=True):
    post: PostTemplate = PostTemplate()
    member: MemberTemplate = MemberTemplate()


class PromptForm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="prompt"):
    """Profile and history as one prompt."""


class MeanForm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mean"):
    """The weighted mean of the vectors of the profile's text and of each history entry's text.

    An entry's weight is its action's, halved for every `half_life_s` between it and the context's `as_of`.
    """

    profile_weight: Annotated[float, Meta(ge=0)] = 1.0
    action_weights: dict[str, Annotated[float, Meta(ge=0)]] = {}
    """Per action of the history; 1 for what is not named."""
    half_life_s: Annotated[float, Meta(gt=0)] | None = None
    max_entries: _Positive = 50
    """Only the newest ones count."""

    def __post_init__(self) -> None:
        if unknown := set(self.action_weights) - set(HISTORY_ACTIONS):
            raise ValueError(f"action_weights names no action of a history: {', '.join(sorted(unknown))}")


MemberForm = PromptForm | MeanForm


class TokenLimits(Struct, frozen=True, forbid_unknown_fields=True):
    post: _Positive = 512
    member: _Positive = 2048


class Golden(Struct, frozen=True, forbid_unknown_fields=True):
    """A text and the vector that `encode_text` gave when the package was written: float32, little-endian."""

    text: str
    vector: bytes

    def as_vector(self) -> Vector:
        return np.frombuffer(self.vector, dtype="<f4")


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1] = 1
    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    base_model: BaseModel
    templates: Templates = Templates()
    special_tokens: dict[str, str]
    """Of each role (a field, an action as `action.like`, `instruction`) its token's string."""
    quantiles: dict[str, list[float]] = {}
    """Of each number field of a template its 99 boundaries; see `encoders.package.quantiles`."""
    pooling: PoolingMode = "mean"
    dimensions: tuple[_Positive, ...]
    """What a vector may be cut to; the model's own size is the largest."""
    dimension: _Positive
    """What this package's vectors are cut to."""
    token_limits: TokenLimits = TokenLimits()
    precision: Precision = "fp32"
    member_form: MemberForm = PromptForm()
    training: dict[str, Any] = {}
    files: dict[str, _Digest] = {}
    goldens: list[Golden] = []

    def __post_init__(self) -> None:
        if self.dimension not in self.dimensions:
            raise ValueError(f"dimension {self.dimension} is not among dimensions {list(self.dimensions)}")
        if missing := [role for role in roles(self.templates, self.member_form) if role not in self.special_tokens]:
            raise ValueError(f"special_tokens lacks {', '.join(missing)}")
        if missing := [name for name in number_fields(self.templates) if name not in self.quantiles]:
            raise ValueError(f"quantiles lacks a table for {', '.join(missing)}")
        for boundaries in self.quantiles.values():
            check_table(boundaries)


def roles(templates: Templates, member_form: MemberForm) -> list[str]:
    """Every role that needs a special token, in a fixed order."""
    post, member = templates.post, templates.member
    found = [*post.fields, *(["instruction"] if post.instruction else [])]
    if isinstance(member_form, PromptForm):
        found += [*member.profile, *(["instruction"] if member.instruction else [])]
        found += [f"action.{action}" for action in HISTORY_ACTIONS]
        found += ["age"] if member.history_ages else []
    return list(dict.fromkeys(found))


def number_fields(templates: Templates) -> list[str]:
    """Every field that needs a quantile table."""
    return list(dict.fromkeys([*templates.post.numbers, *(["age"] if templates.member.history_ages else [])]))


def default_special_tokens(templates: Templates, member_form: MemberForm) -> dict[str, str]:
    """`<|nearline:text|>` and so on; no tokenizer of the LLaMA family holds such a token."""
    return {role: f"<|nearline:{role}|>" for role in roles(templates, member_form)}


def read_manifest(body: bytes) -> Manifest:
    """Raises BadPackage."""
    try:
        return msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPackage(f"{MANIFEST_FILE} is wrong: {error}; write the package again") from error


def render_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
