"""What prompts hold where the settings do not say it: what the events carry and the better member form, or texts alone.

A model made from texts alone would be served with numbers, authors and profiles that it has never seen; one made from
members and whole posts alone, with the words of a search. But where fields say little of whom a post is for, texts
alone are better. Owns the choice. Which fields the events carry is found in `data.named_fields`, and what is best by
`inner_split`.
"""

from dataclasses import replace
from typing import Any, Final

from trainer.data.feed import Feed
from trainer.data.named_fields import carried_templates, carry_titles
from trainer.device_use import is_sharded
from trainer.inner_split import inner_cut
from trainer.plan import Plan

_SEARCH_WEIGHT: Final = 0.1
"""Of the main task's tokens: text queries come beside what the model is made for."""


def with_default_prompts(feed: Feed, plan: Plan) -> Plan:
    """The plan itself where its settings name templates or a member form, or where it starts from a package, which has
    both. Where no inner split could say what is best, it is the form `prompt`, whose prompts hold the most. Text
    queries are learned by the task search, unless the settings name tasks, or the posts have no titles. Raises
    BadEvents and PackageError."""
    settings = plan.settings
    if settings.templates is not None or settings.member_form is not None or plan.base is not None:
        return plan
    inner_cut_us = None if is_sharded() else inner_cut(feed, plan.cut_us, settings.inner_holdout)
    # What the training on the inner split learns from has to carry it too.
    known_until_us = plan.cut_us if inner_cut_us is None else inner_cut_us
    chosen: dict[str, Any] = {
        "templates": carried_templates(feed, known_until_us),
        "member_form": "prompt" if inner_cut_us is None else "auto",
    }
    if not _names_tasks(plan) and carry_titles(feed, known_until_us):
        chosen["tasks"] = {"search": _SEARCH_WEIGHT}
    texts_alone = None if inner_cut_us is None else settings.model_copy(update={"member_form": "mean"})
    return replace(plan, settings=settings.model_copy(update=chosen), texts_alone=texts_alone)


def default_prompts_sentence(plan: Plan) -> str:
    """What `with_default_prompts` has chosen, and what it costs."""
    templates = plan.prompts.templates
    of_members = ", ".join([*templates.member.profile, "what they acted on"])
    if plan.settings.member_form == "auto":
        form = (
            "both member forms, and texts alone, are tried on an inner split, so it takes about four times as long as "
            "with member_form in the settings"
        )
    else:
        form = "the member form is prompt, because no inner split can say what is best"
    of_posts = ", ".join(templates.post.fields)
    sentence = f"prompts hold what the events carry: of posts {of_posts}; of members {of_members}; {form}"
    if "search" in plan.settings.tasks:
        sentence = f"{sentence}; text queries are learned from posts' titles, by the task search"
        if plan.texts_alone is not None and "search" not in plan.texts_alone.tasks:
            return f"{sentence}, unless texts alone are best: then a query is a text like any other"
        return sentence
    if not _names_tasks(plan):
        return f"{sentence}; no task teaches text queries, because too few posts have a title above their text"
    return sentence


def _names_tasks(plan: Plan) -> bool:
    return "tasks" in plan.settings.model_fields_set
