"""Which live post of the hot tier is in which slot, and the fields of a post that filters compare. Knows neither
vectors nor ages.

A reader sees the slots as they were when it began, through a mask. So a slot that is blanked keeps its post until all
readers that began before have ended. Only then the slot is free again.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.string_codes import StringCodes
from indexer.tiers import Filters, StoredPost
from schemas.embeddings import PostEmbedding
from schemas.ids import MemberId, Micros, PostId, Revision

Slots = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BLANK: Final = StoredPost(PostId(""), Revision(0), True, MemberId(""), None, Micros(0), None)


class SlotTable:
    """Methods marked "within `exclusive`" may only be called inside that context."""

    def __init__(self, num_slots: int) -> None:
        self._changed = Condition()
        self._slot_of: dict[PostId, int] = {}
        self._posts = [_BLANK] * num_slots
        self._live = np.zeros(num_slots, np.bool_)
        self._created_at = np.zeros(num_slots, np.int64)
        self._language = np.zeros(num_slots, np.int32)
        self._languages = StringCodes()
        self._by_author: dict[str, set[int]] = {}
        self._free = list(range(num_slots))[::-1]
        """The lowest slot is taken first, so that a tier with few posts scans few rows."""
        self._uncleared: set[int] = set()
        """Free slots whose vectors are still in the matrix."""
        self._num_used = 0
        """The highest slot that was ever taken, plus one."""
        self._blanked: deque[tuple[int, int]] = deque()
        """Slots that are not free yet, each after the number of the last reading that began before it was blanked."""
        self._readings: set[int] = set()
        """The numbers of the readings that have not ended."""
        self._last_reading = 0

    def __len__(self) -> int:
        return len(self._slot_of)

    def slot_of(self, post_id: PostId) -> int | None:
        """Within `exclusive`."""
        return self._slot_of.get(post_id)

    def post(self, slot: int) -> StoredPost:
        """Within `exclusive`, or by a reader for a slot of its mask."""
        return self._posts[slot]

    def post_ids(self) -> list[PostId]:
        """The ids of all posts that are live now."""
        return list(self._slot_of)

    @contextmanager
    def exclusive(self, num_free: int = 0) -> Iterator[None]:
        """Waits until `num_free` slots are free. Within this context no other thread changes the table, and no reader
        begins."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= num_free)
            yield

    @contextmanager
    def reading(self, filters: Filters) -> Iterator[Mask]:
        """The slots that are live now and pass the filters. They hold their posts until the reader ends."""
        with self._changed:
            self._last_reading += 1
            reading = self._last_reading
            self._readings.add(reading)
            mask = self._mask(filters)
        try:
            yield mask
        finally:
            with self._changed:
                self._readings.discard(reading)
                self._free_blanked()

    def take(self, post: PostEmbedding) -> int:
        """Puts the post into a free slot and returns the slot. Within `exclusive`."""
        slot = self._free.pop()
        self._uncleared.discard(slot)
        self._num_used = max(self._num_used, slot + 1)
        self._slot_of[post.post_id] = slot
        self._posts[slot] = StoredPost(
            post.post_id, post.revision, False, post.author_id, post.language, post.created_at_us, None
        )
        self._created_at[slot] = post.created_at_us
        self._language[slot] = self._languages.code(post.language)
        self._by_author.setdefault(post.author_id, set()).add(slot)
        self._live[slot] = True
        return slot

    def blank(self, slot: int) -> None:
        """Removes the post: no later reader sees it. Within `exclusive`."""
        post = self._posts[slot]
        del self._slot_of[post.post_id]
        self._live[slot] = False
        slots_of_author = self._by_author[post.author_id]
        slots_of_author.discard(slot)
        if not slots_of_author:
            del self._by_author[post.author_id]
        self._blanked.append((self._last_reading, slot))
        self._free_blanked()

    def pop_uncleared(self) -> list[int]:
        """Slots that became free since the last call and were not taken again; the caller clears their vectors. Within
        `exclusive`, by the thread that takes slots."""
        slots, self._uncleared = list(self._uncleared), set()
        return slots

    def _free_blanked(self) -> None:
        oldest_reading = min(self._readings, default=self._last_reading + 1)
        freed = False
        while self._blanked and self._blanked[0][0] < oldest_reading:
            slot = self._blanked.popleft()[1]
            self._posts[slot] = _BLANK
            self._free.append(slot)
            self._uncleared.add(slot)
            freed = True
        if freed:
            self._changed.notify()

    def _mask(self, filters: Filters) -> Mask:
        mask = self._live[: self._num_used].copy()
        if filters.languages:
            mask &= self._languages.among(self._language[: self._num_used], filters.languages)
        if filters.created_after_us is not None:
            mask &= self._created_at[: self._num_used] > filters.created_after_us
        for author_id in filters.exclude_authors:
            mask[list(self._by_author.get(author_id, ()))] = False
        excluded = (self._slot_of.get(PostId(post_id)) for post_id in filters.exclude_posts)
        mask[[slot for slot in excluded if slot is not None]] = False
        return mask
