"""Baselines that a model must beat: words in common, popularity, chance. Each gives (M, C) scores for a task.

Knows no models. Shapes: M members, C candidates, W words.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer

from schemas.ids import MemberId, PostId
from trainer.data.feed import Feed
from trainer.evaluation.task import EvaluationTask

Scores = npt.NDArray[np.float32]

LAST_POSTS: Final = 50
"""As many as a history holds."""
_WORDS: Final = r"(?u)\b\w\w+\b"


def tfidf(candidates: Sequence[str], histories: Sequence[Sequence[str]], fitted: Sequence[str]) -> Scores:
    """Sublinear TF-IDF over words of two or more characters that are in at least two texts. A member is the mean of the
    texts of its history. `fitted`: the texts by which it is decided how rare a word is."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=_WORDS, min_df=2)
    if not _share_words(vectorizer, fitted):
        return np.zeros((len(histories), len(candidates)), dtype=np.float32)
    vectorizer.fit(fitted)
    all_texts = [text for history in histories for text in history]
    posts_CW, texts_W = vectorizer.transform(candidates), vectorizer.transform(all_texts or [""])
    scores_MC: Scores = np.zeros((len(histories), len(candidates)), dtype=np.float32)
    start = 0
    for row, history in enumerate(histories):
        if history:
            mean_W = np.asarray(texts_W[start : start + len(history)].mean(axis=0)).ravel()
            scores_MC[row] = posts_CW @ mean_W
        start += len(history)
    return scores_MC


def _share_words(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> bool:
    """Whether any word is in two texts. Without one there is nothing to fit."""
    words_of = vectorizer.build_analyzer()
    seen: set[str] = set()
    for text in texts:
        words = set(words_of(text))
        if words & seen:
            return True
        seen |= words
    return False


def bm25(candidates: Sequence[str], histories: Sequence[Sequence[str]]) -> Scores:
    """A member's query is all the words of its history."""
    import bm25s

    def words(texts: Sequence[str]) -> list[list[str]]:
        words_of_texts: list[list[str]] = bm25s.tokenize(
            list(texts), token_pattern=_WORDS, stopwords=None, return_ids=False, show_progress=False
        )
        return words_of_texts

    index = bm25s.BM25()
    index.index(words(candidates), show_progress=False)
    scores_MC: Scores = np.zeros((len(histories), len(candidates)), dtype=np.float32)
    for row, (query,) in enumerate(words([" ".join(history)]) for history in histories):
        if query:
            scores_MC[row] = index.get_scores(query)
    return scores_MC


def popularity(feed: Feed, task: EvaluationTask) -> Scores:
    """A fresh post has no counts yet. Its score is the mean number of actions on its author's posts before the cut."""
    num_actions: dict[MemberId, int] = {}
    num_posts: dict[MemberId, int] = {}
    for post in feed.posts.values():
        if post.created_at_us < task.cut_us:
            num_posts[post.author_id] = num_posts.get(post.author_id, 0) + 1
    for positive in feed.positives:
        if positive.at_us < task.cut_us:
            author = feed.posts[positive.post_id].author_id
            num_actions[author] = num_actions.get(author, 0) + 1
    # Every author gets one more post, without an action: so an author of a single lucky post does not lead.
    rates_C = [num_actions.get(post.author_id, 0) / (num_posts.get(post.author_id, 0) + 1) for post in task.candidates]
    return np.broadcast_to(np.array(rates_C, dtype=np.float32), (len(task.targets), len(task.candidates)))


def random(task: EvaluationTask, seed: int = 0) -> Scores:
    shape = len(task.targets), len(task.candidates)
    scores_MC: Scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return scores_MC


def last_texts(feed: Feed, post_ids: Sequence[PostId]) -> list[str]:
    """The whole texts of the last posts."""
    return [feed.posts[post_id].text for post_id in post_ids[-LAST_POSTS:]]


def titles(texts: Sequence[str]) -> list[str]:
    """The texts' first lines."""
    return [text.partition("\n")[0] for text in texts]
