"""Adds the further columns that a question asks for: author, time of creation, language."""

from retriever.answer.answer_builder import Candidates
from retriever.answer.inquiry import Inquiry
from retriever.answer.stored_posts import StoredPosts
from schemas.ids import MemberId, Micros, Revision


class Columns:
    """Any thread may call `add`."""

    def __init__(self, posts: StoredPosts) -> None:
        self._posts = posts

    def add(self, inquiry: Inquiry, candidates: Candidates) -> None:
        """A post that was deleted a moment ago, or cannot be looked up in time, gets an empty author, the time 0 and no
        language. If it cannot be looked up, the answer says so."""
        columns = inquiry.question.columns
        if "revision" in columns and candidates.revisions is None:
            candidates.revisions = [Revision(0)] * len(candidates.post_ids)
        if not columns - {"revision"}:
            return
        with inquiry.builder.step("columns"):
            found = self._posts.find(candidates.post_ids, inquiry.deadline_s)
        for problem in found.problems:
            inquiry.builder.missing(problem)
        if "author" in columns:
            candidates.authors = [MemberId("") if post is None else post.author_id for post in found.posts]
        if "created_at" in columns:
            candidates.created_at_us = [Micros(0) if post is None else post.created_at_us for post in found.posts]
        if "language" in columns:
            candidates.languages = [None if post is None else post.language for post in found.posts]
