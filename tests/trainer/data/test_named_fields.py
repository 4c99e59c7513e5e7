"""Which fields a training takes by itself."""

from collections.abc import Iterable
from datetime import timedelta

from schemas.ids import Micros
from tests.kit.data.events import Event, activity, member_updated, post_created, post_updated
from tests.kit.data.training_events import START, feed_of
from trainer.data.named_fields import carried_templates, carry_titles
from trainer.settings import TemplateSettings

POSTS = [post_created(f"p{number}", at=START) for number in range(40)]


def templates(*more: Event, of: Iterable[Event] = POSTS) -> TemplateSettings:
    """Those of all these events."""
    feed = feed_of([*of, activity("m", "p0", at=START), *more])
    return carried_templates(feed, feed.cut(0.0))


def test_counts_that_a_share_of_the_posts_has_come_with_the_age() -> None:
    assert templates().post == ("author", "text"), "one like on forty posts is too little"
    assert templates(activity("m", "p0", at=START)).post == ("author", "text"), "of one post twice too"
    likes = activity("m", "p1", at=START)
    assert templates(likes).post == ("author", "age", "count.like", "text")
    views = [activity("m", f"p{number}", "view", at=START) for number in range(30)]
    assert templates(*views).post == ("author", "age", "count.view", "text")
    assert templates(likes, *views).post == ("author", "age", "count.view", "count.like", "text"), "as in the contexts"


def test_actions_on_posts_that_no_event_made_are_nobodys_count() -> None:
    assert templates(*(activity("m", f"gone{number}", "share", at=START) for number in range(9))).post[1] == "text"


def test_languages_and_profiles_that_a_share_has() -> None:
    assert "language" not in templates(post_updated(POSTS[0], at=START, language="en")).post
    in_english = [{**post, "language": "en"} for post in POSTS]
    assert templates(of=in_english).post == ("author", "language", "text")
    assert templates().profile == (), "there are no profiles"
    profiles = [member_updated(f"m{number}", headline="I bake", at=START) for number in range(30)]
    assert templates(*profiles).profile == ("headline",)
    rare = member_updated("m0", headline="I bake", skills=["bread"], at=START)
    assert templates(*profiles, rare).profile == ("headline",)
    often = [member_updated(f"m{number}", skills=["bread"], language="en", at=START) for number in range(2)]
    assert templates(*profiles, *often).profile == ("headline", "skills", "language")


def test_nothing_from_the_cut_on_is_looked_at() -> None:
    feed = feed_of([*POSTS, *(activity("m", f"p{number}", at=START) for number in range(9))])
    assert carried_templates(feed, feed.events[0].at_us) == TemplateSettings(
        post=("text",), profile=(), history_ages=True
    )


def test_every_history_has_ages() -> None:
    assert templates().history_ages


def have_titles(*texts: str) -> bool:
    """Of forty posts these first; the others are of one line."""
    posts = [post_created(f"p{number}", text, at=START) for number, text in enumerate(texts)]
    feed = feed_of([*posts, *POSTS[len(posts) :], activity("m", "p0", at=START)])
    return carry_titles(feed, feed.cut(0.0))


def test_titles_that_a_share_of_the_posts_has() -> None:
    assert have_titles("bread\nhow to bake it", "fog\nwhere it comes from")
    assert not have_titles("bread\nhow to bake it"), "one of forty is too little"
    assert not have_titles(*["news\nof today"] * 40), "a title that all have says nothing of any"
    assert not have_titles(*(f"bread {number}\n \n" for number in range(40))), "with nothing below"


def test_a_title_from_the_cut_on_is_not_looked_at() -> None:
    later = START + timedelta(hours=1)
    titled = [post_created(f"t{number}", f"title {number}\nbody", at=later) for number in range(40)]
    feed = feed_of([*POSTS, *titled])
    assert carry_titles(feed, Micros(feed.events[-1].at_us + 1))
    assert not carry_titles(feed, feed.events[-1].at_us)
