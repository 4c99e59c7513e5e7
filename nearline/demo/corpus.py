"""What the demo's package is trained on: pairs of texts that belong together.

Three sources. Made-up worlds (other seeds than the demo's) teach their subjects. Documentation strings of Python and of
the libraries in this environment teach ordinary technical prose. Invented subjects, whose words are drawn anew all
the time, teach that rare words in common count, whatever they mean. Owns the pairs; refuses to know the model.
"""

import ast
import random
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from nearline.demo.world import World, WorldSize, make_world

_TRAINING_SIZE: Final = WorldSize(posts=6_000, members=400, activity=30_000)
_LIBRARIES: Final = (
    "numpy",
    "scipy",
    "sklearn",
    "networkx",
    "torch",
    "aiohttp",
    "pydantic",
    "_pytest",
    "confluent_kafka",
)
_POSITIVE: Final = frozenset({"click", "like", "comment", "share", "follow"})
_SHORTEST: Final = 60
"""Characters; a shorter documentation string says too little."""
_TEXT_CHARS: Final = 400


class Pair(NamedTuple):
    """Two texts that belong together. Pairs of one label are never each other's negatives."""

    anchor: str
    positive: str
    label: str


class Source(Protocol):
    def pair(self, rng: random.Random) -> Pair: ...

    def texts(self) -> Sequence[str]:
        """For the tokenizer."""
        ...


class WorldPairs:
    """Two posts of one subject on which one member acted."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._groups: list[tuple[str, list[str]]] = []
        self._texts: list[str] = []
        for seed in seeds:
            self._add(make_world(seed, datetime(2026, 1, 1, tzinfo=UTC), _TRAINING_SIZE))

    def _add(self, world: World) -> None:
        text_of = {event["post_id"]: event["text"] for event in world.events if "text" in event}
        acted: dict[tuple[str, str], list[str]] = defaultdict(list)
        for event in world.events:
            if event["type"] == "activity" and event["action"] in _POSITIVE:
                subject = world.truth.subject_of[event["post_id"]]
                acted[event["member_id"], subject].append(text_of[event["post_id"]])
        self._groups += [(subject, texts) for (_, subject), texts in acted.items() if len(set(texts)) > 1]
        self._texts += text_of.values()

    def pair(self, rng: random.Random) -> Pair:
        subject, texts = rng.choice(self._groups)
        anchor, positive = rng.sample(texts, 2)
        return Pair(anchor, positive, subject)

    def texts(self) -> Sequence[str]:
        return self._texts


class DocumentationPairs:
    """Two pieces of one documentation string, or two strings of one module."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._modules = [(str(path), texts) for path, texts in _documented(roots) if texts]

    def pair(self, rng: random.Random) -> Pair:
        module, texts = rng.choice(self._modules)
        if len(texts) > 1 and rng.random() < 0.5:
            first, second = rng.sample(texts, 2)
            return Pair(_excerpt(first, rng), _excerpt(second, rng), label=module)
        words = rng.choice(texts).split()
        cut = rng.randint(len(words) // 3, len(words) * 2 // 3)
        return Pair(_excerpt(" ".join(words[:cut]), rng), _excerpt(" ".join(words[cut:]), rng), label=module)

    def texts(self) -> Sequence[str]:
        return [text for _, texts in self._modules for text in texts]


class InventedPairs:
    """Two texts that share some of the words of a subject nobody has seen before, among words that mean nothing."""

    _SUBJECT_WORDS: Final = 5

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z_][\w.-]*\w", text))
        ranked = [word for word, count in counts.most_common() if count > 2]
        self._common, self._rare = ranked[:300], ranked[300:]
        self._number = 0

    def pair(self, rng: random.Random) -> Pair:
        self._number += 1
        subject = rng.sample(self._rare, self._SUBJECT_WORDS)
        return Pair(self._text(subject, rng), self._text(subject, rng), label=f"invented {self._number}")

    def _text(self, subject: Sequence[str], rng: random.Random) -> str:
        words = rng.sample(subject, rng.randint(2, 4)) + rng.choices(self._common, k=rng.randint(4, 16))
        words += rng.sample(self._rare, rng.randint(1, 3))
        rng.shuffle(words)
        return " ".join(words)

    def texts(self) -> Sequence[str]:
        return ()


def documentation_roots() -> list[Path]:
    libraries = Path(sysconfig.get_paths()["purelib"])
    found = [libraries / name for name in _LIBRARIES]
    return [Path(sysconfig.get_paths()["stdlib"]), *(root for root in found if root.is_dir())]


def _documented(roots: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root).parts
            if not {"tests", "test", "site-packages", "idlelib"} & set(inside):
                yield path.relative_to(root.parent), _strings(path)


def _strings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    strings = (ast.get_docstring(node) for node in nodes)
    return [text for text in strings if text is not None and len(text) >= _SHORTEST]


def _excerpt(text: str, rng: random.Random) -> str:
    """At most some hundred characters, from anywhere."""
    start = rng.randint(0, max(0, len(text) - _TEXT_CHARS))
    return text[start : start + rng.randint(100, _TEXT_CHARS)]
