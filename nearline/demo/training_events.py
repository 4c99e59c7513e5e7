"""Writes the events that the demo's package was trained on, as JSON lines for `nearline train`.

    python -m nearline.demo.training_events > training.jsonl
    nearline train --events training.jsonl --config nearline/demo/training.toml --holdout 0 --tokens 6000000 \\
        --id demo --out half-texts
    nearline train --from half-texts --events training.jsonl --config nearline/demo/training_whole_texts.toml \\
        --holdout 0 --tokens 1500000 --id demo --out nearline/demo/package

With OMP_NUM_THREADS=1 these commands made the committed package. A package is never overwritten, so remove its folder
first.

Three sources. Texts of the demo's subjects, by writers of other seeds than the demo's, teach what each subject is
about. Documentation strings of Python's standard library teach ordinary prose. Invented subjects teach that rare words
in common count, whatever they mean. Each subject and each module is an author, with one reader who likes all its posts.
Owns these events; refuses to know how a model is trained.
"""

import ast
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import click

from nearline.demo.subjects import SUBJECTS
from nearline.demo.world import Event, Writer, json_lines

_SEEDS: Final = (101, 102, 103)
"""Of the writers. They differ from the seeds of the demo and of tests. Each writer seldom uses some of a subject's
words, so one writer is not enough."""
_SUBJECT_TEXTS: Final = 12_000
_INVENTED_SUBJECTS: Final = 2_000
_TEXTS_PER_INVENTED: Final = 3
_INVENTED_WORDS: Final = 5
_COMMON_WORDS: Final = 300
"""The most frequent words of the documentation strings. Alone they tell no subject."""
_PIECE_WORDS: Final = 60
"""Longer documentation strings become several posts."""
_SHORTEST_PIECE_WORDS: Final = 10
_INTERVAL: Final = timedelta(seconds=60)
_SKIPPED_FOLDERS: Final = frozenset({"test", "tests", "idle_test", "site-packages"})
"""Of the standard library."""


class Text(NamedTuple):
    author: str
    text: str


def training_events(now: datetime) -> Iterator[Event]:
    """In the order of their times, the last now. The sources follow each other in time, and a batch holds posts of
    about one time. So the posts of a batch are of one source, where the other groups are hard negatives."""
    rng = random.Random(_SEEDS[0])
    prose = list(_docstring_texts())
    texts = [*_invented_texts(prose, rng), *prose, *_subject_texts(rng)]
    for number, text in enumerate(texts, 1):
        yield from _post_and_like(f"p{number:06d}", text, now - _INTERVAL * (len(texts) - number))


def _post_and_like(post_id: str, text: Text, at: datetime) -> Iterator[Event]:
    """A post, and the like of its author's reader."""
    moment = at.isoformat()
    yield {
        "type": "post.created",
        "post_id": post_id,
        "author_id": text.author,
        "text": text.text,
        "language": "en",
        "created_at": moment,
    }
    reader = f"reader of {text.author}"
    yield {"type": "activity", "member_id": reader, "post_id": post_id, "action": "like", "at": moment}


def _subject_texts(rng: random.Random) -> Iterator[Text]:
    writers = [Writer(random.Random(seed)) for seed in _SEEDS]
    for _ in range(_SUBJECT_TEXTS):
        subject = rng.choice(sorted(SUBJECTS))
        yield Text(subject, _subject_text(subject, rng.choice(writers), rng))


def _subject_text(subject: str, writer: Writer, rng: random.Random) -> str:
    """A post, a member's headline, or a list of words. Each word of a list stands on its own line: the token of a word
    at the start of a line is not its token after a space, and a query often starts with the word that matters."""
    kind = rng.random()
    if kind < 0.5:
        return writer.post_text(subject)
    if kind < 0.6:
        return writer.headline(subject)
    return "\n".join(rng.sample((subject, *SUBJECTS[subject]), rng.randint(1, 6)))


def _invented_texts(prose: Sequence[Text], rng: random.Random) -> Iterator[Text]:
    """Texts that share some rare words of a subject nobody has seen before, among other words."""
    counts = Counter(word for piece in prose for word in re.findall(r"[a-z]+", piece.text.lower()))
    ranked = [word for word, count in counts.most_common() if count > 2]
    common, rare = ranked[:_COMMON_WORDS], ranked[_COMMON_WORDS:]
    for number in range(_INVENTED_SUBJECTS):
        subject = rng.sample(rare, _INVENTED_WORDS)
        for _ in range(_TEXTS_PER_INVENTED):
            words = rng.sample(subject, rng.randint(2, 4)) + rng.choices(common, k=rng.randint(4, 16))
            words += rng.sample(rare, rng.randint(1, 3))
            rng.shuffle(words)
            yield Text(f"invented {number}", " ".join(words))


def _docstring_texts() -> Iterator[Text]:
    """Documentation strings of modules, their classes and functions; the module is the author."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not _SKIPPED_FOLDERS & set(inside.parts):
            for string in _docstrings(path):
                yield from (Text(inside.as_posix(), piece) for piece in _pieces(string))


def _docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return [string for node in nodes if (string := ast.get_docstring(node))]


def _pieces(string: str) -> Iterator[str]:
    words = string.split()
    for start in range(0, len(words), _PIECE_WORDS):
        if len(piece := words[start : start + _PIECE_WORDS]) >= _SHORTEST_PIECE_WORDS:
            yield " ".join(piece)


@click.command()
def main() -> None:
    """Write the events that the demo's package is trained on to stdout, as JSON lines.

    Example: python -m nearline.demo.training_events > training.jsonl
    """
    click.get_text_stream("stdout", encoding="utf-8").writelines(json_lines([*training_events(datetime.now(UTC))]))


if __name__ == "__main__":
    main()
