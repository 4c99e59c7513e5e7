"""What a model must beat: words in common, popularity, chance. Each gives (M, C) scores for a task.

Shapes: M members, C candidates, W words.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer

from schemas.contexts import PostContext
from schemas.ids import MemberId, PostId
from trainer.data.feed import Feed, Task

Scores = npt.NDArray[np.float32]

LAST_POSTS: Final = 50
"""As many as a history holds."""
_WORDS: Final = r"(?u)\b\w\w+\b"


def tfidf(candidates: Sequence[str], histories: Sequence[Sequence[str]], fitted: Sequence[str]) -> Scores:
    """Sublinear TF-IDF, words of two or more characters that are in two texts; a member is the mean of the texts of its
    history. `fitted`: the texts that say how rare a word is."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=_WORDS, min_df=2)
    vectorizer.fit(fitted)
    flat = [text for history in histories for text in history]
    posts_CW, texts_W = vectorizer.transform(candidates), vectorizer.transform(flat or [""])
    scores: Scores = np.zeros((len(histories), len(candidates)), dtype=np.float32)
    start = 0
    for row, history in enumerate(histories):
        if history:
            mean_W = np.asarray(texts_W[start : start + len(history)].mean(axis=0)).ravel()
            scores[row] = posts_CW @ mean_W
        start += len(history)
    return scores


def bm25(candidates: Sequence[str], histories: Sequence[Sequence[str]]) -> Scores:
    """A member's query is all the words of its history."""
    import bm25s

    def words(texts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = bm25s.tokenize(
            list(texts), token_pattern=_WORDS, stopwords=None, return_ids=False, show_progress=False
        )
        return found

    index = bm25s.BM25()
    index.index(words(candidates), show_progress=False)
    scores: Scores = np.zeros((len(histories), len(candidates)), dtype=np.float32)
    for row, (query,) in enumerate(words([" ".join(history)]) for history in histories):
        if query:
            scores[row] = index.get_scores(query)
    return scores


def popularity(feed: Feed, task: Task) -> Scores:
    """A fresh post has no counts yet: it is as popular as its author's posts were before the cut, on average."""
    acted: dict[MemberId, int] = {}
    wrote: dict[MemberId, int] = {}
    for post in feed.posts.values():
        if post.created_at_us < task.cut_us:
            wrote[post.author_id] = wrote.get(post.author_id, 0) + 1
    for positive in feed.positives:
        if positive.at_us < task.cut_us:
            author = feed.posts[positive.post_id].author_id
            acted[author] = acted.get(author, 0) + 1
    # One post without an action is added to each author's: a single lucky post does not lead.
    rates = [acted.get(post.author_id, 0) / (wrote.get(post.author_id, 0) + 1) for post in task.candidates]
    return np.broadcast_to(np.array(rates, dtype=np.float32), (len(task.targets), len(task.candidates)))


def random(task: Task, seed: int = 0) -> Scores:
    found: Scores = np.random.default_rng(seed).random((len(task.targets), len(task.candidates)), dtype=np.float32)
    return found


def texts(feed: Feed, post_ids: Sequence[PostId]) -> list[str]:
    """Of the last ones, whole."""
    return [feed.posts[post_id].text for post_id in post_ids[-LAST_POSTS:]]


def whole(candidates: Sequence[PostContext]) -> list[str]:
    return [post.text for post in candidates]


def titles(found: Sequence[str]) -> list[str]:
    """First lines."""
    return [text.partition("\n")[0] for text in found]
