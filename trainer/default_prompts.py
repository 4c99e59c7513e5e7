"""What prompts hold where the settings do not say it: what the events carry, and the better member form.

A model made from texts alone would be served with numbers, authors and profiles that it has never seen. Owns the
choice. Which fields the events carry is found in `data.named_fields`, and the better member form by `inner_split`.
"""

from dataclasses import replace

from trainer.data.feed import Feed
from trainer.data.named_fields import carried_templates
from trainer.device_use import is_sharded
from trainer.inner_split import can_be_measured
from trainer.plan import Plan


def with_default_prompts(feed: Feed, plan: Plan) -> Plan:
    """The plan itself where its settings name templates or a member form, or where it starts from a package, which has
    both. Where no inner split could say which member form is better, it is the form `prompt`, whose prompts hold the
    most. Raises BadEvents and PackageError."""
    settings = plan.settings
    if settings.templates is not None or settings.member_form is not None or plan.base is not None:
        return plan
    can_choose = not is_sharded() and can_be_measured(feed, plan.cut_us, settings.inner_holdout)
    chosen = {
        "templates": carried_templates(feed, plan.cut_us),
        "member_form": "auto" if can_choose else "prompt",
    }
    return replace(plan, settings=settings.model_copy(update=chosen))


def default_prompts_sentence(plan: Plan) -> str:
    """What `with_default_prompts` has chosen, and what it costs."""
    templates = plan.prompts.templates
    of_members = ", ".join([*templates.member.profile, "what they acted on"])
    if plan.settings.member_form == "auto":
        form = (
            "both member forms are tried on an inner split, so it takes about three times as long as with member_form "
            "in the settings"
        )
    else:
        form = "the member form is prompt, because no inner split can say which is better"
    of_posts = ", ".join(templates.post.fields)
    return f"prompts hold what the events carry: of posts {of_posts}; of members {of_members}; {form}"
