"""Prompts: from a context to token ids, field by field, by a package's templates.

A field is its special token and then its value. Owns the order of fields and what is cut at a token limit. Looks at no
clock and no device: the same context always gives the same prompt.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from msgspec import UNSET

from encoders.errors import Unencodable
from encoders.package.manifest import HISTORY_AGE, Manifest, MemberTemplate, PromptForm, QueryTemplate
from encoders.package.quantiles import percentile
from encoders.prompt.safe_tokenizer import CHARS_PER_TOKEN, SafeTokenizer, TokenIds
from schemas.contexts import HistoryEntry, MemberContext, PostContext
from schemas.ids import Micros

Prompt = TokenIds

_CACHED_VALUES: Final = 16_384
"""How many short values (languages, authors, percentiles) have their token ids cached."""
_US_PER_S: Final = 1_000_000
_DEFAULT_TEMPLATE: Final = MemberTemplate()


class Prompts:
    """Renders the contexts of one package. May be used by many threads."""

    def __init__(self, manifest: Manifest, tokenizer: SafeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special
        self._quantiles = manifest.quantiles
        self._post = manifest.templates.post
        self._member = manifest.templates.member
        num_wrapping = len(tokenizer.begin) + len(tokenizer.end)
        self._post_room = manifest.token_limits.post - num_wrapping
        self._member_room = manifest.token_limits.member - num_wrapping
        self._value_ids = lru_cache(_CACHED_VALUES)(tokenizer.__call__)
        self._post_start = self._instruction(self._post.instruction)
        self._member_start = self._instruction(self._member.instruction)
        query, form = manifest.templates.query, manifest.member_form
        self._query_start = (
            self._instruction(query.instruction) if isinstance(query, QueryTemplate) else self._post_start
        )
        max_entries = form.max_entries if isinstance(form, PromptForm) else UNSET
        self._max_entries = max_entries if isinstance(max_entries, int) else None
        self._history_age = HISTORY_AGE if HISTORY_AGE in manifest.quantiles else "age"

    def forget_values(self) -> None:
        """Empties the cache of token ids: values of erased profiles may be in it."""
        self._value_ids.cache_clear()

    @property
    def post_prefix(self) -> Prompt:
        """How every post's prompt begins, unless the token limit cuts it."""
        text = [self._special["text"]] if self._post.fields == ("text",) else []
        return [*self._tokenizer.begin, *self._post_start, *text]

    @property
    def member_prefix(self) -> Prompt:
        """How every member's prompt begins, unless the token limit cuts it."""
        return [*self._tokenizer.begin, *self._member_start]

    def posts(self, contexts: Sequence[PostContext]) -> list[Prompt | Unencodable]:
        """For contexts that are not deleted. A prompt that is too long loses the end of its text."""
        texts = self._text_ids([context.text for context in contexts], self._post_room)
        return [self._post_prompt(context, ids) for context, ids in zip(contexts, texts, strict=True)]

    @property
    def query_prefix(self) -> Prompt:
        """How every query's prompt begins, unless the token limit cuts it."""
        return [*self._tokenizer.begin, *self._query_start, self._special["text"]]

    def texts(self, texts: Sequence[str]) -> list[Prompt | Unencodable]:
        """For profiles and history entries: plain texts by the post template, with the field `text` alone."""
        return self._plain_prompts(self._post_start, texts)

    def queries(self, texts: Sequence[str]) -> list[Prompt | Unencodable]:
        """For the words of a search, by the query template."""
        return self._plain_prompts(self._query_start, texts)

    def members(self, contexts: Sequence[MemberContext]) -> list[Prompt | Unencodable]:
        """By the member form `prompt`, for contexts that are `is_encodable` by the package's template."""
        room = self._member_room
        histories = [self._newest(context.history) for context in contexts]
        texts = self._text_ids([entry.text for history in histories for entry in history], room)
        prompts: list[Prompt | Unencodable] = []
        start = 0
        for context, history in zip(contexts, histories, strict=True):
            end = start + len(history)
            prompts.append(self._member_prompt(context, history, texts[start:end]))
            start = end
        return prompts

    def render(self, prompt: Prompt) -> str:
        """The prompt as a text. The package's own tokenizer turns it into the same prompt again, unless a text in it
        was cut within a word or spells a special token."""
        begin, end = len(self._tokenizer.begin), len(prompt) - len(self._tokenizer.end)
        return self._tokenizer.text(prompt[begin:end])

    def _post_prompt(self, context: PostContext, text: TokenIds | Unencodable) -> Prompt | Unencodable:
        if isinstance(text, Unencodable):
            return text
        try:
            head = self._post_start + self._post_head(context)
        except ValueError as error:
            return Unencodable(str(error))
        return self._finish_post(head, text)

    def _post_head(self, context: PostContext) -> TokenIds:
        head: TokenIds = []
        for field in self._post.fields[:-1]:
            if value := self._post_value(field, context):
                head += [self._special[field], *self._value_ids(value)]
        return head

    def _plain_prompts(self, start: TokenIds, texts: Sequence[str]) -> list[Prompt | Unencodable]:
        text_ids = self._text_ids(texts, self._post_room)
        return [ids if isinstance(ids, Unencodable) else self._finish_post(start, ids) for ids in text_ids]

    def _newest(self, history: Sequence[HistoryEntry]) -> Sequence[HistoryEntry]:
        return history if self._max_entries is None else history[-self._max_entries :]

    def _finish_post(self, head: TokenIds, text: TokenIds) -> Prompt:
        ids = [*head, self._special["text"], *text]
        return [*self._tokenizer.begin, *ids[: self._post_room], *self._tokenizer.end]

    def _post_value(self, field: str, context: PostContext) -> str | None:
        match field.partition("."):
            case ("author", _, _):
                return context.author_id
            case ("language", _, _):
                return context.language
            case ("age", _, _):
                return self._percentile(field, age_s(context.created_at_us, context.as_of_us))
            case ("count", _, action):
                return self._percentile(field, context.counts.get(action, 0))
            case (_, _, action):
                hours = age_s(context.created_at_us, context.as_of_us) / 3600
                # In its first hour a rate is not extrapolated: one like in the first second is not 3,600 an hour.
                return self._percentile(field, context.counts.get(action, 0) / max(hours, 1.0))

    def _member_prompt(
        self, context: MemberContext, history: Sequence[HistoryEntry], texts: Sequence[TokenIds | Unencodable]
    ) -> Prompt | Unencodable:
        try:
            profile = self._member_start + self._profile(context)
        except ValueError as error:
            return Unencodable(str(error))
        blocks: list[TokenIds] = []
        room = self._member_room - len(profile)
        for entry, text in zip(reversed(history), reversed(texts), strict=True):
            if isinstance(text, Unencodable):
                return text
            block = self._entry(entry, text, context.as_of_us)
            if block and len(block) > room:
                if not blocks:
                    blocks.append(block[: max(room, 0)])  # the newest entry is cut instead of left out
                break
            blocks.append(block)
            room -= len(block)
        entries = [token_id for block in reversed(blocks) for token_id in block]
        return [*self._tokenizer.begin, *(profile + entries)[: self._member_room], *self._tokenizer.end]

    def _profile(self, context: MemberContext) -> TokenIds:
        ids: TokenIds = []
        for field in self._member.profile:
            if value := profile_value(field, context):
                ids += [self._special[field], *self._value_ids(value)]
        return ids

    def _entry(self, entry: HistoryEntry, text: TokenIds, as_of_us: Micros) -> TokenIds:
        """Empty for an action that the package has no token for."""
        action = self._special.get(f"action.{entry.action}")
        if action is None:
            return []
        age: TokenIds = []
        if self._member.history_ages:
            percentage = self._percentile(self._history_age, age_s(entry.at_us, as_of_us))
            age = [self._special["age"], *self._value_ids(percentage)]
        return [action, *age, *text]

    def _percentile(self, field: str, number: float) -> str:
        return str(percentile(self._quantiles[field], number))

    def _instruction(self, instruction: str) -> TokenIds:
        return [self._special["instruction"], *self._tokenizer(instruction)] if instruction else []

    def _text_ids(self, texts: Sequence[str], room: int) -> list[TokenIds | Unencodable]:
        chars = room * CHARS_PER_TOKEN
        return self._tokenizer.batch([text[:chars] for text in texts])


def age_s(at_us: Micros, as_of_us: Micros) -> float:
    """Never below 0: when events come out of order, an entry may be newer than the context."""
    return max(as_of_us - at_us, 0) / _US_PER_S


def profile_value(field: str, context: MemberContext) -> str | None:
    match field:
        case "headline":
            return context.headline
        case "skills":
            return ", ".join(context.skills)
        case "industry":
            return context.industry
        case _:
            return context.language


def profile_text(template: MemberTemplate, context: MemberContext) -> str:
    """The profile as one text, for the member form `mean`. Without the language, which is only a code."""
    fields = (field for field in template.profile if field != "language")
    return "\n".join(value for field in fields if (value := profile_value(field, context)))


def has_profile(context: MemberContext, template: MemberTemplate = _DEFAULT_TEMPLATE) -> bool:
    """Whether a field of the template says anything. A language alone does not make a profile."""
    return any(_says_anything(field, context) for field in template.profile if field != "language")


def _says_anything(field: str, context: MemberContext) -> bool:
    return any(context.skills) if field == "skills" else bool(profile_value(field, context))


def is_encodable(context: MemberContext, template: MemberTemplate = _DEFAULT_TEMPLATE) -> bool:
    """Whether there is anything for the member form `prompt` to encode."""
    return not context.deleted and (has_profile(context, template) or bool(context.history))
