"""nearline.json: what a model package says about itself, as typed data that is checked when it is read.

Owns the fields and what makes them valid. Imports no torch, because quick commands read it too, and does not know where
the folder is.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

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
HISTORY_AGE: Final = "history.age"
"""The quantile table of the ages in histories. A package without it uses the one of `age`."""

Precision = Literal["fp32", "bf16"]
PoolingMode = Literal["mean", "last"]
_Positive = Annotated[int, Meta(ge=1)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def _check_fields(side: str, fields: tuple[str, ...], known: tuple[str, ...]) -> None:
    if unknown := [field for field in fields if field not in known]:
        raise ValueError(f"the {side} template wants {', '.join(unknown)}, which this version's contexts do not have")
    if len(set(fields)) != len(fields):
        raise ValueError(f"the {side} template names a field twice")


class BaseModel(Struct, frozen=True, forbid_unknown_fields=True):
    """What the weights were made from. `sha256`: of its weight files; None for a model made from scratch."""

    name: str
    sha256: _Digest | None = None


class PostTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """A field is its special token and then its value. `text` comes last, so that a long prompt is cut in its text."""

    fields: tuple[str, ...] = ("text",)
    instruction: str = ""
    """Every post's prompt begins with it, after the special token `instruction`."""

    def __post_init__(self) -> None:
        _check_fields("post", self.fields, POST_FIELDS)
        if self.fields[-1:] != ("text",):
            raise ValueError("the post template ends with the field text")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The fields that need a quantile table."""
        return tuple(field for field in self.fields if field == "age" or "." in field)


class MemberTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """First the profile, then the history with the newest entry last. An entry begins with its action's special token.

    The member form `mean` uses only the profile's fields, as one text.
    """

    profile: tuple[str, ...] = ("headline", "skills", "industry")
    instruction: str = ""
    history_ages: bool = False
    """Whether each entry also holds its age, as a percentile."""

    def __post_init__(self) -> None:
        _check_fields("member", self.profile, PROFILE_FIELDS)


class QueryTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """A text query: the instruction after its special token, then the words after the special token `text`."""

    instruction: str = ""


class Templates(Struct, frozen=True, forbid_unknown_fields=True):
    post: PostTemplate = PostTemplate()
    member: MemberTemplate = MemberTemplate()
    query: QueryTemplate | UnsetType = UNSET
    """Unset: a query's prompt is that of a post of which only the text is known."""


class PromptForm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="prompt"):
    """Profile and history as one prompt."""

    max_entries: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    """How many of the newest entries count. Unset: all."""


class MeanForm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mean"):
    """The weighted mean of the vectors of the profile's text and of each history entry's text.

    An entry's weight is the weight of its action, halved for every `half_life_s` between the entry and the context's
    `as_of`.
    """

    profile_weight: Annotated[float, Meta(ge=0)] = 1.0
    action_weights: dict[str, Annotated[float, Meta(ge=0)]] = {}
    """By action; an action that is not named has weight 1."""
    half_life_s: Annotated[float, Meta(gt=0)] | None = None
    max_entries: _Positive = 50
    """How many of the newest entries count."""

    def __post_init__(self) -> None:
        if unknown := set(self.action_weights) - set(HISTORY_ACTIONS):
            raise ValueError(f"action_weights names no action of a history: {', '.join(sorted(unknown))}")


MemberForm = PromptForm | MeanForm
FormName = Literal["mean", "prompt"]


def form_name(form: MemberForm) -> FormName:
    return "mean" if isinstance(form, MeanForm) else "prompt"


class MemberVectorsForm(Struct, frozen=True, forbid_unknown_fields=True):
    """A member whose actions fall into several clusters has, beside its one vector, a vector for each: its interests
    (`encoders.interests`)."""

    most: Annotated[int, Meta(ge=2, le=5)] = 5
    distance: Annotated[float, Meta(gt=0)] = 0.9
    """Of Ward's clustering: clusters that are further apart stay two. Two posts whose cosine is 0.6 are 0.9 apart, two
    at a right angle 1.41, and larger clusters count as further apart. So fine that a member's second interest seldom
    falls together with its first: what is lost by a cluster of chance is in the half of the one vector."""
    half_life_s: Annotated[float, Meta(gt=0)] = 30 * 24 * 3600.0
    """An action's weight halves in this time."""
    merge: Literal["quota", "best"] = "quota"
    """`quota`: half of an answer is of the one vector, and in the other half each interest has as many posts as is its
    share of the weights. `best`: a post counts by its best score with any of them."""


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
    """The token for each role: a field, an action such as `action.like`, or `instruction`."""
    quantiles: dict[str, list[float]] = {}
    """The 99 boundaries for each number field of a template; see `encoders.package.quantiles`."""
    pooling: PoolingMode = "mean"
    dimensions: tuple[_Positive, ...]
    """The sizes that a vector may be cut to; the largest is the model's own size."""
    dimension: _Positive
    """The size that this package's vectors are cut to."""
    token_limits: TokenLimits = TokenLimits()
    precision: Precision = "fp32"
    member_form: MemberForm = PromptForm()
    member_vectors: MemberVectorsForm | UnsetType = UNSET
    """Unset: every member has one vector."""
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
    all_roles = [*post.fields, *(["instruction"] if post.instruction else [])]
    if isinstance(member_form, PromptForm):
        all_roles += [*member.profile, *(["instruction"] if member.instruction else [])]
        all_roles += [f"action.{action}" for action in HISTORY_ACTIONS]
        all_roles += ["age"] if member.history_ages else []
    if isinstance(templates.query, QueryTemplate) and templates.query.instruction:
        all_roles += ["instruction"]
    return list(dict.fromkeys(all_roles))


def number_fields(templates: Templates) -> list[str]:
    """Every field that needs a quantile table."""
    return list(dict.fromkeys([*templates.post.numbers, *(["age"] if templates.member.history_ages else [])]))


def default_special_tokens(templates: Templates, member_form: MemberForm) -> dict[str, str]:
    """`<|nearline:text|>` and so on; no tokenizer of the LLaMA family has such tokens."""
    return {role: f"<|nearline:{role}|>" for role in roles(templates, member_form)}


def read_manifest(body: bytes) -> Manifest:
    """Raises BadPackage."""
    try:
        return msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPackage(f"{MANIFEST_FILE} is wrong: {error}; write the package again") from error


def render_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
