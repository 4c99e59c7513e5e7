"""Makes cold answers ahead for members who asked lately and whose vector has changed, so that their next question finds
one. Knows how each of them asked last.
"""

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Final

from retriever.answer.cold.cold_searches import ColdSearch, ColdSearches
from retriever.answer.combine import How, list_length
from retriever.answer.nearest_search import cold_limit
from retriever.answer.queries import asked_by, member_query
from retriever.answer.question import Question
from retriever.feed.member_rows import HeldMember
from schemas.ids import MemberId

_REMEMBERED: Final = 10_000
_MAX_IDS: Final = 100
"""A question that names more ids is not remembered: it will hardly be asked a second time, and takes much memory."""


class MadeAhead:
    """Any thread may call the methods. Both return at once."""

    def __init__(
        self, cold_searches: ColdSearches, max_remembered: int = _REMEMBERED, *, combine_by: How = "quota"
    ) -> None:
        self._cold = cold_searches
        self._combine_by = combine_by
        self._max_remembered = max_remembered
        self._lock = Lock()
        self._asked: OrderedDict[MemberId, Question] = OrderedDict()
        """The last question of each member; the least recently asked first."""

    def remember(self, question: Question) -> None:
        """Of a member whose vector answered it."""
        member_id = question.member_id
        if member_id is None or _num_ids(question) > _MAX_IDS:
            return
        with self._lock:
            before = self._asked.get(member_id)
            if before is not None and before.k > question.k:
                # A longer answer serves the shorter question too.
                question = replace(question, k=before.k)
            self._asked[member_id] = question
            self._asked.move_to_end(member_id)
            if len(self._asked) > self._max_remembered:
                self._asked.popitem(last=False)

    def member_changed(self, member: HeldMember) -> None:
        """Also for a deleted member."""
        with self._lock:
            question = self._asked.get(member.member_id)
            if member.deleted:
                self._asked.pop(member.member_id, None)
        if question is None or member.vector is None:
            return

        # Only when its turn comes, the lists are decoded and made filters of: they are long.
        def search(number: int) -> ColdSearch:
            query = member_query(question, member)
            part = query.parts[number]
            length = question.k if len(query.parts) == 1 else list_length(question.k, part.share, self._combine_by)
            return ColdSearch(part.asked, part.version, part.vector_D, query.filters, cold_limit(length))

        asked = asked_by(question, member.member_id)
        for number in range(1 + len(member.interests)):
            self._cold.make_ahead(asked._replace(interest=number), partial(search, number))


def _num_ids(question: Question) -> int:
    filters = question.filters
    sets = (filters.exclude_authors, filters.exclude_posts, filters.only_authors or (), filters.only_posts or ())
    return sum(map(len, sets))
