"""Writes the texts of a made-up feed: posts, titles, hashtags, profiles, in three languages.

All words are drawn at once; only the sentences are put together one by one. Shapes: N texts, W words of each.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nearline.demo.made_feed import shape
from nearline.demo.made_feed.shape import Ints, Numbers
from nearline.demo.made_feed.words import COMMON_WORDS, HEADLINES, SENTENCES, SUBJECT_WORDS, TITLES
from nearline.demo.subjects import SUBJECTS

SUBJECT_NAMES: Final = tuple(sorted(SUBJECTS))
_PER_SENTENCE: Final = 4
_MOST_SENTENCES: Final = 4
_THEME_SHARE, _SUBJECT_SHARE, _OTHER_SHARE = 0.3, 0.24, 0.08
"""Of the words: those of the post's theme, of its whole subject, and of another subject. The rest mean nothing."""
_PROFILE_WORDS: Final = 4

Words = npt.NDArray[np.object_]


class Writer:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._lexicon = _Lexicon(rng)

    def posts(self, language: Ints, subject: Ints, theme: Ints) -> list[str]:
        num, rng = len(language), self._rng
        words_NW = self._post_words(language, subject, theme)
        sentences = rng.integers(2, _MOST_SENTENCES + 1, num).tolist()
        starts = rng.integers(0, 1_000, num).tolist()
        titled, tagged = (rng.random(num) < shape.TITLES).tolist(), (rng.random(num) < shape.HASHTAGS).tolist()
        names = [shape.LANGUAGES[code] for code in language.tolist()]
        tags = [SUBJECT_NAMES[code] for code in subject.tolist()]
        styles = map(_Style, sentences, starts, titled, tagged)
        return [_post_text(*row) for row in zip(names, words_NW.tolist(), styles, tags, strict=True)]

    def profiles(self, language: Ints, subjects: Ints, themes: Ints) -> Iterator[dict[str, Any]]:
        """Headline, skills, industry and language of each member. `subjects`, `themes`: (N, 2)."""
        words = [
            self._lexicon.draw(self._kinds(language, subjects[:, at], themes[:, at], _PROFILE_WORDS)) for at in (0, 1)
        ]
        rows = zip(language.tolist(), subjects.tolist(), words[0].tolist(), words[1].tolist(), strict=True)
        for code, of_member, main, second in rows:
            name = shape.LANGUAGES[code]
            skills = main[:2] + (second[:2] if of_member[1] >= 0 else main[2:3])
            yield {
                "headline": HEADLINES[name].format(*main[1:4]),
                "skills": skills,
                "industry": SUBJECT_NAMES[of_member[0]],
                "language": name,
            }

    def _kinds(self, language: Ints, subject: Ints, theme: Ints, num: int) -> Ints:
        """(N, `num`): half of the words of the theme, half of the subject."""
        of_theme = self._rng.random((len(language), num)) < 0.5
        theme_N1 = np.where(of_theme, np.maximum(theme, 0)[:, None], shape.THEMES)
        return self._lexicon.kind(language[:, None], np.maximum(subject, 0)[:, None], theme_N1)

    def _post_words(self, language: Ints, subject: Ints, theme: Ints) -> Words:
        size = len(language), _MOST_SENTENCES * _PER_SENTENCE
        draw = self._rng.random(size)
        ends = np.cumsum([_THEME_SHARE, _SUBJECT_SHARE, _OTHER_SHARE])
        other = self._rng.integers(0, len(SUBJECT_NAMES), (size[0], 1))
        of_theme = np.where(draw < ends[0], theme[:, None], shape.THEMES)
        subject_NW = np.where(draw < ends[1], subject[:, None], other)
        kind_NW = self._lexicon.kind(language[:, None], subject_NW, of_theme)
        kind_NW = np.where(draw < ends[2], kind_NW, self._lexicon.common(language)[:, None])
        return self._lexicon.draw(kind_NW)


class _Lexicon:
    """All words in one array. A kind is a stretch of it: the words of a language, subject and theme, or of a whole
    subject, or those that all subjects use."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        words: list[str] = []
        first: list[int] = []
        for language in shape.LANGUAGES:
            for name in SUBJECT_NAMES:
                of_subject = list(rng.permutation(np.array(SUBJECT_WORDS[language][name], dtype=object)))
                for theme in range(shape.THEMES):
                    first.append(len(words))
                    words += of_subject[theme :: shape.THEMES]
                first.append(len(words))
                words += of_subject
            first.append(len(words))
            words += COMMON_WORDS[language]
        self._words: Words = np.array(words, dtype=object)
        self._first = np.array([*first, len(words)])

    def kind(self, language: Ints, subject: Ints, theme: Ints) -> Ints:
        """`theme` may be THEMES: the whole subject."""
        return language * self._of_language + subject * (shape.THEMES + 1) + theme

    def common(self, language: Ints) -> Ints:
        return (language + 1) * self._of_language - 1

    @property
    def _of_language(self) -> int:
        return len(SUBJECT_NAMES) * (shape.THEMES + 1) + 1

    def draw(self, kinds: Ints) -> Words:
        """One word of each kind. Some words are drawn more often than others."""
        uniform: Numbers = self._rng.random(kinds.shape) ** 1.4
        first = self._first[kinds]
        drawn: Words = self._words[first + (uniform * (self._first[kinds + 1] - first)).astype(np.int64)]
        return drawn


class _Style(NamedTuple):
    sentences: int
    first_pattern: int
    """Sentences are of patterns that follow each other from this one on."""
    titled: bool
    tagged: bool


def _post_text(language: str, words: list[str], style: _Style, tag: str) -> str:
    patterns = SENTENCES[language]
    body = []
    for number in range(style.sentences):
        pattern = patterns[(style.first_pattern + number) % len(patterns)]
        sentence = pattern.format(*words[_PER_SENTENCE * number : _PER_SENTENCE * (number + 1)])
        body.append(sentence[0].upper() + sentence[1:])
    if style.tagged:
        body.append(f"#{tag}")
    if not style.titled:
        return " ".join(body)
    title = TITLES[language].format(words[0], words[1])
    return f"{title[0].upper()}{title[1:]}\n{' '.join(body)}"
