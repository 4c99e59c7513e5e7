"""Training examples: a member just before an action, and the post that it acted on, as both were published then.

An example is rendered later, by the same prompts as in the encode stage. Owns which actions are examples and what was
known at their moment: neither holds the action itself nor anything later. Knows no prompts and no batches.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from contexts.actions import is_positive
from contexts.rows import MemberRow
from schemas.contexts import MemberContext, PostContext
from schemas.events import Activity
from schemas.ids import MemberId, Micros, PostId
from trainer.data.feed import Feed, post_activity
from trainer.data.replay import PublishingReplay, Replay

SHOWN: Final = ("impression", "view", "hide", "dwell")
"""Actions that say that a member saw a post."""
_CHOICE: Final = 4
"""Of each member so many times as many shown posts are remembered as an example may have as negatives."""


class Example(NamedTuple):
    at_us: Micros
    owner: int
    """The member's number."""
    post: int
    """The number of the post that the member acts on."""
    member: MemberRow
    """What was published last of the member; `Examples.member_context` makes its context."""
    context: PostContext
    """What was published last of the post."""
    shown: tuple[tuple[int, PostContext], ...]
    """Posts that the member had been shown by then and did not act on before the cut, the newest first: number and
    context, as published at the example's moment."""


@dataclass(frozen=True)
class Examples:
    """In the order of their time."""

    examples: list[Example]
    post_contexts: dict[int, PostContext]
    """By number: the newest context of each post before the cut."""
    profiles: list[str]
    """What the members' profiles say, each text once: a new tokenizer learns its words from them too."""
    context_of: Callable[[MemberRow], MemberContext]
    """The context of a published member row."""
    live_posts: Collection[str]
    """Posts that are not deleted at the cut."""

    def member_context(self, example: Example) -> MemberContext:
        """As it was published, without posts that are deleted at the cut: nothing is learned from these."""
        context = self.context_of(example.member)
        history = [entry for entry in context.history if entry.post_id in self.live_posts]
        return context if len(history) == len(context.history) else replace(context, history=history)


def find_examples(
    feed: Feed,
    cut_us: Micros,
    number_of: Mapping[PostId, int],
    owner_of: Mapping[MemberId, int],
    negatives: int,
) -> Examples:
    """Each member's first positive action on each post. `number_of`: of the posts that are alive at the cut;
    `owner_of`: of the members that are. An action on a post that is not published yet, or on the member's own, is no
    example. An example has up to four times `negatives` shown posts, of which each step takes others."""
    replay = PublishingReplay(feed.rules)
    acted = {(positive.member_id, positive.post_id) for positive in feed.positives if positive.at_us < cut_us}
    shown = _ShownPosts(_CHOICE * negatives)
    seen: set[tuple[str, str]] = set()
    examples: list[Example] = []
    for timed in feed.before(cut_us):
        event = timed.event
        replay.publish_due(timed.at_us)
        if isinstance(event, Activity) and event.post_id in number_of and event.member_id in owner_of:
            member_id, post_id = MemberId(event.member_id), PostId(event.post_id)
            if is_positive(post_activity(timed.at_us, event), feed.rules) and (member_id, post_id) not in seen:
                seen.add((member_id, post_id))
                member, context = replay.published_member(member_id), replay.post_contexts.get(post_id)
                if member and context and not context.deleted and context.author_id != member_id:
                    owner, post = owner_of[member_id], number_of[post_id]
                    passed_over = shown.contexts(member_id, replay, number_of)
                    examples.append(Example(timed.at_us, owner, post, member, context, passed_over))
            elif event.action in SHOWN and (member_id, post_id) not in acted:
                shown.add(member_id, post_id)
        replay.apply(timed)
    return Examples(
        [example for example in examples if not _is_of_deleted_profile(example, replay)],
        {number: replay.post_contexts[post_id] for post_id, number in number_of.items()},
        _profile_texts(replay),
        replay.member_context,
        number_of,
    )


def _is_of_deleted_profile(example: Example, replay: Replay) -> bool:
    """A member that was deleted may have come back. What it was before is not learned from."""
    return example.at_us <= replay.member(example.member.member_id).state.deleted_at_us


def _profile_texts(replay: Replay) -> list[str]:
    profiles = [row.profile for row in replay.members.values() if row.profile is not None]
    texts = (text for profile in profiles for text in (profile.headline, profile.industry, *profile.skills))
    return list(dict.fromkeys(text for text in texts if text))


class _ShownPosts:
    """The posts that each member was shown last."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._of_member: dict[str, list[PostId]] = {}
        """Oldest first."""

    def add(self, member_id: MemberId, post_id: PostId) -> None:
        if self._keep:
            posts = self._of_member.setdefault(member_id, [])
            if post_id in posts:
                posts.remove(post_id)
            posts.append(post_id)
            del posts[: -self._keep]

    def contexts(
        self, member_id: MemberId, replay: PublishingReplay, number_of: Mapping[PostId, int]
    ) -> tuple[tuple[int, PostContext], ...]:
        """Newest first, as published at this moment."""
        posts = reversed(self._of_member.get(member_id, []))
        published = ((number_of[post_id], replay.post_contexts.get(post_id)) for post_id in posts)
        return tuple((number, context) for number, context in published if context is not None and not context.deleted)
