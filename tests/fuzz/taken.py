"""Contexts made of a fuzzer's bytes: any text in any field, any number."""

from typing import Any

from schemas.contexts import COUNTED_ACTIONS, HistoryEntry, MemberContext, PostContext
from schemas.ids import MemberId, Micros, PostId, Revision


def text(taken: Any) -> str:
    return str(taken.ConsumeUnicode(taken.ConsumeIntInRange(0, 60)))


def post_context(taken: Any) -> PostContext:
    return PostContext(
        PostId("p"),
        Revision(1),
        Micros(taken.ConsumeInt(8)),
        text=text(taken),
        author_id=MemberId(text(taken)),
        language=text(taken) if taken.ConsumeBool() else None,
        created_at_us=Micros(taken.ConsumeInt(8)),
        counts={taken.PickValueInList(list(COUNTED_ACTIONS)): taken.ConsumeInt(8)},
    )


def member_context(taken: Any) -> MemberContext:
    actions = ["like", "wrote", "view", text(taken)]
    history = [
        HistoryEntry(PostId("p"), taken.PickValueInList(actions), Micros(taken.ConsumeInt(8)), text(taken))
        for _ in range(taken.ConsumeIntInRange(0, 3))
    ]
    skills = [text(taken) for _ in range(taken.ConsumeIntInRange(0, 3))]
    texts = [text(taken) if taken.ConsumeBool() else None for _ in range(3)]
    return MemberContext(
        MemberId("m"),
        Revision(1),
        Micros(taken.ConsumeInt(8)),
        headline=texts[0],
        skills=skills,
        industry=texts[1],
        language=texts[2],
        history=history,
    )
