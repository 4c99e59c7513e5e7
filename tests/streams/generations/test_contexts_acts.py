"""Acts on versions of the contexts: what each one leads to, and what is refused and with which words."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pytest

from schemas.generations import (
    ContextsRecord,
    Gate,
    GateFigure,
    PackageSource,
    Record,
    decode_record,
    encode_record,
    key_of,
)
from schemas.ids import ContextVersion, Generation, Offset, Partition
from schemas.topics import FIRST_CONTEXTS, context_names, context_topics
from streams.errors import ActRefused
from streams.generations import acts, contexts_acts
from streams.generations.acts import By, Package
from streams.generations.state import Generations
from tests.kit.data.generations import AT

A, B, C = Generation("a-1"), Generation("b-2"), Generation("c-3")
SECOND, THIRD = ContextVersion(2), ContextVersion(3)
BEGINS: Final = {"posts": {Partition(0): Offset(3)}}
GOAL: Final = {"posts": {Partition(0): Offset(7)}}
HOLDS = Gate(AT, [GateFigure("posts that differ", 0, 0, True)])
DIFFERS = Gate(AT, [GateFigure("posts that differ", 1, 0, False)])
BY = By("host:1", AT)

Step = Callable[[Generations], Sequence[Record]]


def after(*steps: Step) -> Generations:
    state = Generations()
    for step in steps:
        state = state.with_records(step(state))
    return state


def package(generation: Generation) -> Package:
    return Package(generation, PackageSource(folder=f"/models/{generation}"), f"digest of {generation}")


def found(state: Generations) -> Sequence[Record]:
    return acts.found(state, package(A), BY)


def claimed(state: Generations) -> Sequence[Record]:
    return contexts_acts.rebuild(state, contexts_acts.next_version(state), BEGINS, BY)


def prepared(state: Generations) -> Sequence[Record]:
    return contexts_acts.prepared(state, SECOND, GOAL, BY)


def rebuild(state: Generations) -> Sequence[Record]:
    """Claimed and prepared."""
    claim = claimed(state)
    return [*claim, *prepared(state.with_records(claim))][-1:]


def checked(state: Generations) -> Sequence[Record]:
    return contexts_acts.checked(state, SECOND, HOLDS, BY)


def build(state: Generations) -> Sequence[Record]:
    return acts.build(state, package(B), {}, BY)


def ready(state: Generations) -> Sequence[Record]:
    return acts.ready(state, B, BY)


def promote(state: Generations) -> Sequence[Record]:
    return acts.promote(state, B, By("host:1", AT, "a test"), force=True)


def retire(generation: Generation) -> Step:
    return lambda state: acts.retire(state, generation, BY, force=True)


def versions(state: Generations) -> dict[int, str]:
    return {version: record.state for version, record in state.contexts.items()}


TAKEN_OVER = (found, rebuild, checked, build)


def test_a_version_is_rebuilt_checked_taken_over_and_the_old_one_retired_with_its_last_reader() -> None:
    state = after(found, rebuild)
    assert (versions(state), state.context_versions) == ({2: "building"}, [1, 2])
    assert (state.contexts[SECOND].begins, state.contexts[SECOND].goal) == (BEGINS, GOAL)
    assert contexts_acts.version_to_build(state) == FIRST_CONTEXTS
    state = after(found, rebuild, checked)
    assert (versions(state), contexts_acts.version_to_build(state)) == ({2: "checked"}, 2)
    state = after(*TAKEN_OVER)
    assert (versions(state), state.records[B].contexts, state.context_versions) == ({2: "live"}, 2, [1, 2])
    state = after(*TAKEN_OVER, ready, promote)
    assert (versions(state), state.context_versions) == ({2: "live"}, [1, 2]), "the way back reads the old one"
    state = after(*TAKEN_OVER, ready, promote, retire(A))
    assert (versions(state), state.context_versions) == ({2: "live", 1: "retired"}, [2])
    state = state.with_records(acts.build(state, package(C), {}, BY))
    assert (state.records[C].contexts, versions(state)) == (2, {2: "live", 1: "retired"})
    assert contexts_acts.next_version(state) == 3


def test_a_version_goes_with_the_generation_that_was_to_take_it_over() -> None:
    state = after(*TAKEN_OVER, retire(B))
    assert (versions(state), state.context_versions) == ({2: "retired"}, [1])
    state = state.with_records(build(state))
    assert state.records[B].contexts == FIRST_CONTEXTS


def test_the_next_build_retires_the_kept_generation_and_what_it_alone_reads() -> None:
    state = after(*TAKEN_OVER, ready, promote, lambda state: acts.build(state, package(C), {}, BY))
    assert versions(state) == {2: "live", 1: "retired"}


def test_what_differs_is_not_taken_over_unless_by_force() -> None:
    def differs(state: Generations) -> Sequence[Record]:
        return contexts_acts.checked(state, SECOND, DIFFERS, BY)

    assert versions(after(found, rebuild, differs)) == {2: "building"}
    assert versions(after(found, rebuild, checked, differs)) == {2: "building"}, "a newer check counts"
    forced = By("host:1", AT, "the old ones are wrong")
    state = after(found, rebuild, lambda state: contexts_acts.checked(state, SECOND, DIFFERS, forced, force=True))
    assert versions(state) == {2: "checked"}
    assert [act.what for act in state.contexts[SECOND].history] == ["rebuild", "prepared", "check overruled by force"]


def test_acts_are_safe_to_repeat() -> None:
    state = after(found, rebuild)
    assert contexts_acts.rebuild(state, SECOND, {}, BY) == prepared(state) == []
    dropped = state.with_records(contexts_acts.drop(state, SECOND, BY))
    assert contexts_acts.drop(dropped, SECOND, BY) == []
    assert versions(dropped.with_records(claimed(dropped))) == {2: "retired", 3: "building"}


@pytest.mark.parametrize(
    ("steps", "act", "words"),
    [
        ((), claimed, "nothing serves here yet"),
        ((found,), prepared, "version 2 of the contexts is not being rebuilt any more"),
        ((found,), lambda state: contexts_acts.rebuild(state, THIRD, {}, BY), "another operator has rebuilt version 3"),
        (
            (found, rebuild),
            lambda state: contexts_acts.rebuild(state, SECOND, {}, BY, "/files"),
            "version 2 .* is being rebuilt from the topics already",
        ),
        (TAKEN_OVER, checked, "version 2 of the contexts is not being rebuilt any more"),
        (TAKEN_OVER, lambda state: contexts_acts.drop(state, SECOND, BY), "a generation has taken it over"),
        (
            (found, rebuild),
            lambda state: contexts_acts.checked(state, SECOND, DIFFERS, BY, force=True),
            "what is forced needs a reason",
        ),
        (
            (found, rebuild, checked),
            lambda state: acts.build(state, package(B), {"post-contexts": {}}, BY),
            "version 2 of the contexts was checked or given up meanwhile",
        ),
    ],
)
def test_what_does_not_fit_is_refused(steps: Sequence[Step], act: Step, words: str) -> None:
    with pytest.raises(ActRefused, match=words):
        act(after(*steps))


def test_records_can_be_read_again_and_those_of_an_earlier_version_read_the_first_contexts() -> None:
    state = after(*TAKEN_OVER)
    for record in state.all_records:
        assert decode_record(key_of(record), encode_record(record)) == record
    assert key_of(state.contexts[SECOND]) == b"contexts.2"
    fields = msgspec.json.decode(encode_record(state.records[B]))
    del fields["contexts"]
    assert decode_record(b"b-2", msgspec.json.encode(fields)).contexts == FIRST_CONTEXTS


def test_the_first_version_has_the_names_that_it_always_had() -> None:
    assert context_names().contexts == ("post-contexts", "member-contexts")
    assert context_names(SECOND).group == "contexts.2"
    of_both = [spec.name for version in (FIRST_CONTEXTS, SECOND) for spec in context_topics(version)]
    assert len(of_both) == len(set(of_both)) == 6 + 9


def test_a_damaged_record_leaves_the_version_as_it_was() -> None:
    state = after(found, rebuild)
    damaged = state.with_message(b"contexts.2", b"{", Offset(9))
    assert versions(damaged) == {2: "building"}
    assert [damage.offset for damage in damaged.damages] == [9]
    other = ContextsRecord(THIRD, "building", AT)
    assert state.with_message(b"contexts.2", encode_record(other), Offset(9)).damages, "its number is not its key"


def test_no_process_works_for_a_version_before_it_is_prepared() -> None:
    state = after(found, claimed)
    assert (versions(state), state.context_versions) == ({2: "building"}, [1])
    assert not {spec.name for spec in state.topics} & set(context_names(SECOND))
    state = state.with_records(prepared(state))
    assert (versions(state), state.context_versions) == ({2: "building"}, [1, 2])
    assert {spec.name for spec in state.topics} >= set(context_names(SECOND).contexts)
