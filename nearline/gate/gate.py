"""Runs the checks one after the other. What cannot be measured does not hold, and the others are measured all the same.

Records nothing. Which figure stands for what is said by each check.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from nearline.ask.connections import Connections
from nearline.errors import is_ours
from nearline.gate import asking, complete, names
from nearline.gate.asking import Ask
from nearline.gate.figures import unmeasured
from nearline.gate.soak import soak_beside
from nearline.gate.subject import Subject
from nearline.generations.packages import package_here
from schemas.embeddings import Vector
from schemas.generations import Gate, GateFigure, GenerationRecord
from schemas.ids import Generation
from streams.errors import ActRefused
from streams.generations.state import Generations

if TYPE_CHECKING:
    from trainer.data.feed import Feed


class Check(NamedTuple):
    names: tuple[str, ...]
    """Of its figures."""
    measure: Callable[[Subject], Iterator[GateFigure]]
    """Raises an error of ours where a part does not answer."""


def _in_log(subject: Subject) -> Iterator[GateFigure]:
    yield complete.in_log(subject.populations, subject.settings.generations.settle_s)


def _in_cold(subject: Subject) -> Iterator[GateFigure]:
    with closing(subject.connections.cold(generation=subject.record.id)) as tier:
        yield complete.in_cold(subject.populations, tier, subject.settings.generations.settle_s)


def _goldens(subject: Subject) -> Iterator[GateFigure]:
    # Imported here: it loads torch, which no refusal needs.
    from nearline.gate.goldens import goldens

    yield goldens(package_here(subject.record, subject.settings), subject.settings.encode.device)


def _recall(subject: Subject) -> Iterator[GateFigure]:
    from nearline.gate.recall import recall_figures

    package, serving = (package_here(record, subject.settings) for record in (subject.record, subject.serving))
    yield from recall_figures(subject.read_feed(), package, serving, subject.settings.encode.device)


@contextmanager
def _asking(subject: Subject) -> Iterator[Ask]:
    both = (subject.record.id, subject.serving.id)
    asking.until_open(subject.connections, both, subject.settings.generations.settle_s)
    with subject.connections.candidates(asking.TIMEOUT_S) as client:
        yield lambda question: client.retrieve_batch([question], timeout_s=asking.TIMEOUT_S)[0]


def _overlap(subject: Subject) -> Iterator[GateFigure]:
    from nearline.gate import overlap, vectors

    members = subject.vectors("member", subject.record.id)
    members.read_on()
    sampled = vectors.sampled(members, overlap.MEMBERS)
    least = subject.settings.generations.min_overlap
    with _asking(subject) as ask:
        yield overlap.overlap(ask, subject.record.id, subject.serving.id, sampled, least)


def _tiers(subject: Subject) -> Iterator[GateFigure]:
    from nearline.gate import tiers

    posts, queries_QD = subject.vectors("post", subject.record.id), _queries(subject, subject.record.id)
    kafka = subject.connections.kafka
    with closing(subject.connections.cold(generation=subject.record.id)) as cold:
        yield tiers.recall_figure(kafka, posts, queries_QD, names.TIER_RECALL, tiers.cold_search(cold))
    with _asking(subject) as ask:
        search = tiers.answer_search(ask, subject.record.id)
        yield tiers.recall_figure(kafka, posts, queries_QD, names.ANSWER_RECALL, search)
        beside, serving = (
            tiers.Asking(each, _queries(subject, each)) for each in (subject.record.id, subject.serving.id)
        )
        yield tiers.search_p99(ask, beside, serving)


def _queries(subject: Subject, generation: Generation) -> Vector:
    """(Q, D), the vectors of sampled members; (0, 0) where there is none."""
    from nearline.gate import tiers, vectors

    members = subject.vectors("member", generation)
    members.read_on()
    # Twice as many, because a member without profile and history has no vector.
    sampled = vectors.sampled(members, 2 * tiers.QUERIES)
    return vectors.stacked(vectors.member_vectors(subject.connections.kafka, members, sampled), tiers.QUERIES)


def _soak(subject: Subject) -> Iterator[GateFigure]:
    bounds = subject.settings.generations
    kafka, serving, beside = subject.connections.kafka, subject.serving, subject.record
    yield soak_beside(kafka, serving, beside, bounds.soak_s, bounds.live_bound_s)


CHECKS: Final = (
    Check((names.IN_LOG,), _in_log),
    Check((names.IN_COLD,), _in_cold),
    Check((names.GOLDENS,), _goldens),
    Check(names.RECALL, _recall),
    Check((names.OVERLAP,), _overlap),
    Check((names.TIER_RECALL, names.ANSWER_RECALL, names.SEARCH_P99), _tiers),
    Check((names.AGE,), _soak),
)


def check_can_be_gated(state: Generations, record: GenerationRecord) -> GenerationRecord:
    """Returns the serving generation, with which it is compared. Raises ActRefused."""
    serving = state.serving
    if serving is None:
        raise ActRefused("nothing serves here yet, so there is nothing to compare with; start nearline up first")
    if record.state not in ("ready", "kept"):
        mends = {
            "building": f"wait until it is ready: nearline generations show {record.id}",
            "serving": "name another one",
            "retired": "build it again",
        }
        raise ActRefused(
            f"the generation {record.id} is {record.state}, and has no gate to pass; {mends[record.state]}"
        )
    return serving


def measure(
    connections: Connections,
    state: Generations,
    record: GenerationRecord,
    read_feed: "Callable[[], Feed]",
    begins: Callable[[str], None],
) -> Gate:
    """All checks of one generation, beside the one that serves. Raises ActRefused where it cannot be gated."""
    subject = Subject(connections, record, check_can_be_gated(state, record), read_feed)
    began = datetime.now(UTC)
    return Gate(began, list(run_gate(subject, begins)))


def run_gate(subject: Subject, begins: Callable[[str], None]) -> Iterator[GateFigure]:
    """`begins` is called with the name of what is measured next."""
    for check in CHECKS:
        begins(check.names[0])
        missing = list(check.names)
        try:
            for figure in check.measure(subject):
                missing.remove(figure.name)
                yield figure
        except Exception as error:
            if not is_ours(error):
                raise
            for name in missing:
                yield unmeasured(name, str(error))
