"""A text that spells special tokens, moves cursors or turns the reading direction changes its own tokens alone."""

from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.package.manifest import MemberTemplate, PostTemplate, PromptForm, Templates, TokenLimits
from encoders.package.model_package import ModelPackage
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer, TokenIds
from schemas.contexts import MemberContext, PostContext
from schemas.ids import MemberId
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.packages import make_tiny_package

TEMPLATES: Final = Templates(
    PostTemplate(("author", "language", "age", "count.like", "text"), "Find"),
    MemberTemplate(("headline", "skills", "industry", "language"), "Who", history_ages=True),
)
PIECES: Final = (
    *(f"<|nearline:{role}|>" for role in ("text", "author", "action.like", "age", "instruction", "headline")),
    *("<|pad|>", "<|begin_of_text|>", "<|eot_id|>", "<s>", "</s>", "[CLS]", "<unk>", "<|", "|>"),
    *("\x00", "\x1b[2J", "\x7f", "\r", "\n", "\t", "\b", "\u0085", "\u2028"),
    *("\u202e", "\u202d", "\u2066", "\u2069", "\u200f", "\u061c", "\ufeff", "\u200b", "\u200d", "\ufffd"),
    *("שלום", "مرحبا", "é", "e\u0301", "漢", "👩‍👩‍👧", "a", " ", "7"),
)
TEXTS: Final = st.lists(st.sampled_from(PIECES) | st.text(min_size=1, max_size=3), min_size=1, max_size=8).map("".join)


class Fields:
    """Prompts taken apart into their fields: a special token, and what follows it."""

    def __init__(self, package: ModelPackage) -> None:
        tokenizer = SafeTokenizer(package.folder / "tokenizer.json", package.manifest.special_tokens)
        self.tokens = tokenizer
        self.prompts = Prompts(package.manifest, tokenizer)
        self._roles = {number: role for role, number in tokenizer.special.items()}

    def __call__(self, prompt: Any) -> list[tuple[str, TokenIds]]:
        assert isinstance(prompt, list), prompt
        starts = [at for at, number in enumerate(prompt) if number in self._roles]
        assert starts[0] == 0
        return [(self._roles[prompt[at]], prompt[at + 1 : end]) for at, end in pairwise([*starts, len(prompt)])]

    def posts(self, *contexts: PostContext) -> list[Prompt]:
        return [prompt for prompt in self.prompts.posts(contexts) if isinstance(prompt, list)]

    def members(self, *contexts: MemberContext) -> list[Prompt]:
        return [prompt for prompt in self.prompts.members(contexts) if isinstance(prompt, list)]


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Fields:
    folder = tmp_path_factory.mktemp("strange") / "p"
    limits = TokenLimits(post=2048, member=2048)
    return Fields(make_tiny_package(folder, member_form=PromptForm(), templates=TEMPLATES, token_limits=limits))


POST: Final = post_context("plain", author_id=MemberId("m7"), language="en", counts={"like": 2})
MEMBER: Final = member_context(
    history_entry("older", "share", 2),
    history_entry("plain"),
    headline="dev",
    skills=["go"],
    industry="it",
    language="en",
)


def check(before: list[tuple[str, TokenIds]], after: list[tuple[str, TokenIds]], at: int, of_text: TokenIds) -> None:
    """Only the field at this place has changed, and into these tokens."""
    expected = [*before]
    expected[at] = (before[at][0], of_text)
    assert after == expected


@given(text=TEXTS)
def test_in_a_post_only_the_fields_own_tokens_change(fields: Fields, text: str) -> None:
    plain = fields(fields.posts(POST)[0])
    assert [role for role, _ in plain] == ["instruction", "author", "language", "age", "count.like", "text"]
    of_text = fields.tokens(text)
    for at, name in ((1, "author_id"), (2, "language"), (5, "text")):
        strange = msgspec.structs.replace(POST, **{name: text})
        first, changed, last = fields.posts(POST, strange, POST)
        check(plain, fields(changed), at, of_text)
        assert fields(first) == fields(last) == plain


@given(text=TEXTS)
def test_in_a_member_only_the_fields_own_tokens_change(fields: Fields, text: str) -> None:
    plain = fields(fields.members(MEMBER)[0])
    roles = ["instruction", "headline", "skills", "industry", "language"]
    assert [role for role, _ in plain] == [*roles, "action.share", "age", "action.like", "age"]
    of_text = fields.tokens(text)
    for at, name in ((1, "headline"), (3, "industry"), (4, "language")):
        check(plain, fields(fields.members(msgspec.structs.replace(MEMBER, **{name: text}))[0]), at, of_text)
    skills = msgspec.structs.replace(MEMBER, skills=[text, "go"])
    check(plain, fields(fields.members(skills)[0]), 2, fields.tokens(f"{text}, go"))
    history = msgspec.structs.replace(MEMBER, history=[MEMBER.history[0], history_entry(text)])
    check(plain, fields(fields.members(history)[0]), 8, [*plain[8][1][: -len(fields.tokens("plain"))], *of_text])


@given(text=TEXTS)
def test_a_query_has_its_own_tokens_and_nothing_else(fields: Fields, text: str) -> None:
    (prompt,) = fields.prompts.texts([text])
    assert fields(prompt) == [("instruction", fields.tokens("Find")), ("text", fields.tokens(text))]
