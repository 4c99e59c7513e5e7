"""What the operators' page asks for and does, with the instance of the monitor's data folder.

As in `build.py`, imports of what only acts need are inside: most monitors never build a package.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

from msgspec import to_builtins
from pydantic import ValidationError

from nearline.ask.connections import Connections
from nearline.ask.texts import read_texts
from nearline.errors import NearlineError, NotReady
from nearline.page.pages import Build, Candidate, Candidates, Promote, Question, ReplayLetters, RollBack
from retriever.errors import RequestRefused, RetrieverError
from schemas.api import RetrieveRequest
from schemas.errors import BadRecord
from schemas.ids import Generation
from streams.errors import StillFed, StreamsError
from streams.generations.acts import By, acting, this_process
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_box import Selection
from streams.operate.dead_letter_counts import LetterClass

_ANSWER_S: Final = 3.0
_TIMEOUT_MS: Final = 2_000
_CONTEXTS: Final = 20_000
"""How many contexts are read at most to find texts: less than a command may, because this process stays."""
_TEXTS_S: Final = 1.0
_MOST: Final = 100


class PageActs:
    """Implements `Acts`. Every call makes connections of its own."""

    def __init__(self, connections: Callable[[], Connections], broker_up: Callable[[], bool]) -> None:
        """`broker_up`: whether it is worth to ask the broker for texts."""
        self._connections = connections
        self._broker_up = broker_up

    def build(self, wanted: Build) -> str:
        from nearline.generations.retiring import remove_left_behind
        from nearline.up import operator_acts

        connections = self._connections()
        built = operator_acts.build(connections, wanted.package, wanted.registry or None, _by(wanted.reason))
        try:
            remove_left_behind(connections.settings, connections.kafka)
        except StillFed as error:
            return f"{built} is being built; {error}"
        return f"{built} is being built"

    def promote(self, wanted: Promote) -> str:
        from nearline.up import operator_acts

        generation, by = Generation(wanted.generation), _by(wanted.reason)
        return operator_acts.promote(self._connections(), generation, by, share=wanted.share)

    def roll_back(self, wanted: RollBack) -> str:
        from nearline.up import operator_acts

        return operator_acts.roll_back(self._connections(), _by(wanted.reason))

    def replay_letters(self, wanted: ReplayLetters) -> str:
        from streams.operate.dead_letter_replay import clear, replay

        kafka = self._connections().kafka
        with closing(OffsetReader(kafka)) as reader:
            selection = Selection(letter_class=LetterClass(wanted.stage, wanted.cause))
            num_sent, num_stuck = replay(kafka, reader, selection)
            try:
                clear(kafka, reader)
            except StreamsError as error:
                return f"{num_sent} sent back; their records stay until the topic's retention: {error}"
        stuck = f"; {num_stuck} have no key, so nothing can be published again for them" if num_stuck else ""
        return f"{num_sent} sent back{stuck}"

    def answer(self, question: Question) -> Candidates:
        request = _request(question)
        connections = self._connections()
        with connections.retriever(_ANSWER_S) as client:
            answer = client.retrieve(request)
        notes = [str(reason) for reason in answer.reasons]
        texts: dict[str, str] = {}
        try:
            if not self._broker_up():
                raise NotReady("the broker does not answer")
            texts = read_texts(connections, answer.post_ids, _CONTEXTS, _TEXTS_S)
        except (NearlineError, RetrieverError, StreamsError, BadRecord) as error:
            notes.append(f"the texts cannot be shown: {error}")
        columns = zip(answer.post_ids, answer.scores, answer.tiers, strict=True)
        return Candidates(
            answer.generation,
            answer.partial,
            [Candidate(post_id, score, tier, texts.get(post_id)) for post_id, score, tier in columns],
            answer.timings_ms.get("total"),
            notes,
        )


def _request(question: Question) -> RetrieveRequest:
    """Raises RequestRefused, as the retriever would."""
    fields = {name: value for name, value in to_builtins(question).items() if value is not None}
    try:
        return RetrieveRequest.model_validate({**fields, "timeout_ms": _TIMEOUT_MS, "k": min(question.k, _MOST)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise RequestRefused(f"{place}{first['msg'].removeprefix('Value error, ')}") from None


def _by(reason: str | None) -> By:
    return acting(f"operators' page of {this_process()}", reason or None)
