from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from encoders.errors import Unencodable
from encoders.package.manifest import (
    HISTORY_AGE,
    BaseModel,
    Manifest,
    MemberTemplate,
    PostTemplate,
    PromptForm,
    QueryTemplate,
    Templates,
    TokenLimits,
    default_special_tokens,
    number_fields,
)
from encoders.prompt.prompts import Prompts, is_encodable, profile_text
from encoders.prompt.safe_tokenizer import SafeTokenizer
from tests.kit.data.contexts import HOUR_US, history_entry, member_context, post_context

POST = PostTemplate(("author", "language", "age", "count.like", "rate.like", "text"))
MEMBER = MemberTemplate(("headline", "skills", "language"), history_ages=True)
TEMPLATES = Templates(POST, MEMBER)
TABLE = [float(number) for number in range(1, 100)]


class Rendered:
    """Prompts as readable text: one character is one token, special tokens in brackets, begin and end as ^ and ~."""

    def __init__(
        self,
        folder: Path,
        templates: Templates = TEMPLATES,
        *,
        form: PromptForm | None = None,
        tables: dict[str, list[float]] | None = None,
        **limits: int,
    ) -> None:
        special = {role: f"<{role}>" for role in default_special_tokens(templates, PromptForm())}
        tokenizer = Tokenizer(models.BPE({chr(32 + number): number for number in range(95)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.add_special_tokens(list(special.values()))
        tokenizer.post_processor = TemplateProcessing(single="^ $A ~", special_tokens=[("^", 62), ("~", 94)])
        tokenizer.save(str(folder / "tokenizer.json"))
        manifest = Manifest(
            id="t",
            base_model=BaseModel("none"),
            templates=templates,
            special_tokens=special,
            quantiles=dict.fromkeys(number_fields(templates), TABLE) | (tables or {}),
            member_form=form or PromptForm(),
            dimensions=(8,),
            dimension=8,
            token_limits=TokenLimits(**{"post": 100, "member": 100, **limits}),
        )
        self._tokenizer = tokenizer
        self.prompts = Prompts(manifest, SafeTokenizer(folder / "tokenizer.json", special))

    def __call__(self, side: str, *contexts: Any) -> list[str]:
        prompts = getattr(self.prompts, side)(contexts)
        return [prompt if isinstance(prompt, Unencodable) else self._spell(prompt) for prompt in prompts]

    def _spell(self, prompt: list[int]) -> str:
        return "".join(str(self._tokenizer.id_to_token(number)) for number in prompt)


def test_a_post_is_its_fields_in_order_with_numbers_as_percentiles(tmp_path: Path) -> None:
    context = post_context(
        "hi", author_id="m7", language="en", created_at_us=10 * HOUR_US - 50_000_000, counts={"like": 3}
    )
    assert Rendered(tmp_path)("posts", context) == ["^<author>m7<language>en<age>51<count.like>4<rate.like>4<text>hi~"]


def test_a_rate_is_per_hour_and_the_first_hour_counts_as_whole(tmp_path: Path) -> None:
    rate = Templates(PostTemplate(("rate.like", "text")))
    old, new = (post_context("", created_at_us=us, counts={"like": 30}) for us in (0, 10 * HOUR_US - 1))
    assert Rendered(tmp_path, rate)("posts", old, new) == ["^<rate.like>4<text>~", "^<rate.like>31<text>~"]


def test_counts_and_ages_change_nothing_unless_the_template_says_so(tmp_path: Path) -> None:
    plain = Rendered(tmp_path, Templates())
    assert (
        plain("posts", post_context("hi"), post_context("hi", counts={"like": 9}, created_at_us=5))
        == ["^<text>hi~"] * 2
    )


def test_what_a_post_does_not_say_is_left_out(tmp_path: Path) -> None:
    template = Templates(PostTemplate(("author", "language", "text")))
    assert Rendered(tmp_path, template)("posts", post_context("hi")) == ["^<text>hi~"]


def test_only_the_text_of_a_post_is_cut(tmp_path: Path) -> None:
    template = Templates(PostTemplate(("language", "text"), instruction="Find"))
    rendered = Rendered(tmp_path, template, post=14)
    assert rendered("posts", post_context("abcdefgh", language="en")) == ["^<instruction>Find<language>en<text>abc~"]


def test_a_plain_text_is_a_post_of_text_alone(tmp_path: Path) -> None:
    rendered = Rendered(tmp_path, Templates(PostTemplate(("language", "text"), instruction="I")))
    assert rendered("texts", "hi", "") == ["^<instruction>I<text>hi~", "^<instruction>I<text>~"]


def test_special_tokens_in_any_field_stay_text(tmp_path: Path) -> None:
    context = member_context(history_entry("<action.like>"), headline="<skills>", skills=["<text>"], language="en")
    prompt = Rendered(tmp_path).prompts.members([context])[0]
    assert isinstance(prompt, list)
    assert sum(number >= 95 for number in prompt) == 5  # headline, skills, language, one action, its age


def test_a_member_is_profile_then_history_newest_last(tmp_path: Path) -> None:
    context = member_context(
        history_entry("old", "wrote", 1),
        history_entry("new", "like"),
        headline="dev",
        skills=["c", "go"],
        industry="it",
        language="en",
    )
    assert Rendered(tmp_path)("members", context) == [
        "^<headline>dev<skills>c, go<language>en<action.wrote><age>100old<action.like><age>1new~"
    ]


def test_the_newest_entries_fill_the_budget_and_none_is_cut(tmp_path: Path) -> None:
    template = Templates(member=MemberTemplate(("headline",)))
    history = [history_entry(text) for text in ("first", "second", "third")]
    rendered = Rendered(tmp_path, template, member=2 + 2 + 7 + 6)
    assert rendered("members", member_context(*history, headline="d")) == [
        "^<headline>d<action.like>second<action.like>third~"
    ]
    rendered = Rendered(tmp_path, template, member=2 + 2 + 7 + 6 - 1)
    assert rendered("members", member_context(*history, headline="d")) == ["^<headline>d<action.like>third~"]


def test_an_entry_longer_than_the_budget_is_cut_rather_than_left_out(tmp_path: Path) -> None:
    rendered = Rendered(tmp_path, Templates(), member=8)
    assert rendered("members", member_context(history_entry("first"), history_entry("abcdefgh"))) == [
        "^<action.like>abcde~"
    ]
    assert rendered("members", member_context(history_entry("abc"), headline="abcdefgh")) == ["^<headline>abcde~"]


def test_an_action_that_no_history_holds_is_left_out(tmp_path: Path) -> None:
    assert Rendered(tmp_path, Templates())(
        "members", member_context(history_entry("a", "hide"), history_entry("b"))
    ) == ["^<action.like>b~"]


def test_one_bad_record_does_not_harm_the_others(tmp_path: Path) -> None:
    rendered = Rendered(tmp_path)
    bad = "half \ud800"
    posts = rendered("posts", post_context("a"), post_context(bad), post_context("c", author_id=bad), post_context("d"))
    members = rendered(
        "members",
        member_context(history_entry("a")),
        member_context(history_entry(bad)),
        member_context(headline=bad),
        member_context(headline="d"),
    )
    for outcomes in (posts, members):
        assert [isinstance(outcome, Unencodable) for outcome in outcomes] == [False, True, True, False]


def test_a_member_without_profile_and_history_is_not_encoded() -> None:
    assert not is_encodable(member_context(language="en", skills=[""]))
    assert not is_encodable(member_context(headline="dev", deleted=True))
    assert is_encodable(member_context(headline="dev"))
    assert is_encodable(member_context(history_entry("a")))


def test_the_profile_as_one_text() -> None:
    context = member_context(headline="dev", skills=["c", "go"], language="en")
    assert profile_text(MemberTemplate(("headline", "skills", "industry", "language")), context) == "dev\nc, go"
    assert profile_text(MemberTemplate(), msgspec.structs.replace(context, headline=None, skills=[])) == ""


@pytest.mark.parametrize("text", ["x" * 100_000, "\n" * 100_000])
def test_a_huge_text_costs_no_more_than_one_of_the_limit(tmp_path: Path, text: str) -> None:
    (prompt,) = Rendered(tmp_path, Templates()).prompts.posts([post_context(text)])
    assert not isinstance(prompt, Unencodable)
    assert len(prompt) <= 100


def test_a_query_has_a_template_of_its_own(tmp_path: Path) -> None:
    templates = Templates(PostTemplate(instruction="post"), query=QueryTemplate("find"))
    rendered = Rendered(tmp_path, templates)
    assert rendered("queries", "oven") == ["^<instruction>find<text>oven~"]
    assert rendered("texts", "oven") == ["^<instruction>post<text>oven~"]
    assert rendered.prompts.query_prefix == rendered.prompts.queries(["x"])[0][:-2]


@pytest.mark.parametrize(("query", "expected"), [(UNSET, "^<instruction>post<text>oven~"), (None, "^<text>oven~")])
def test_without_an_instruction_of_its_own(tmp_path: Path, query: Any, expected: str) -> None:
    """Unset: as a post of which only the text is known, as in packages from before there was a query template."""
    template = QueryTemplate() if query is None else UNSET
    assert Rendered(tmp_path, Templates(PostTemplate(instruction="post"), query=template))("queries", "oven") == [
        expected
    ]


def test_only_the_newest_entries_of_a_history_are_in_the_prompt(tmp_path: Path) -> None:
    context = member_context(*(history_entry(text) for text in "abcd"), headline="d")
    plain = Templates(member=MemberTemplate(("headline",)))
    newest = Rendered(tmp_path, plain, form=PromptForm(2))
    assert newest("members", context) == ["^<headline>d<action.like>c<action.like>d~"]
    assert Rendered(tmp_path, plain)("members", context)[0].count("<action.like>") == 4


def test_ages_in_a_history_have_a_table_of_their_own_where_there_is_one(tmp_path: Path) -> None:
    """Posts are mostly some hours old, what is in a history weeks and months."""
    context = member_context(history_entry("a", hours_ago=2))
    ages = Templates(member=MemberTemplate((), history_ages=True))
    own = Rendered(tmp_path, ages, tables={HISTORY_AGE: [3600.0 * number for number in range(1, 100)]})
    assert own("members", context) == ["^<action.like><age>3a~"]
    assert Rendered(tmp_path, ages)("members", context) == ["^<action.like><age>100a~"]


def test_a_profile_without_a_field_of_the_template_is_none() -> None:
    context = member_context(headline="dev", language="en")
    assert not is_encodable(context, MemberTemplate(("industry", "language")))
    assert is_encodable(context, MemberTemplate(("headline",)))
