"""Which members the canary answers, and what becomes of it when it fails."""

from retriever.generations.roles import is_in_share
from schemas.generations import Canary
from schemas.ids import MemberId, PostId
from tests.kit.data.generations import AT
from tests.kit.open_generations import MEMBERS, A, B, Openings, Start, check_one_generation, question_of_member
from tests.kit.waiting import until

CANARY = Canary(B, 0.3, AT)
IN_CANARY = [member for member in MEMBERS if is_in_share(MemberId(member), B, CANARY.share)]
NOT_IN_CANARY = [member for member in MEMBERS if member not in IN_CANARY]


def test_the_canary_answers_its_members_and_the_serving_one_all_else(start: Start) -> None:
    running = start(Openings())
    running.take(A, CANARY)
    running.until_serves(A)
    running.until_open(B)
    by_member = {member: running.ask(member).generation for member in MEMBERS}
    assert by_member == {**dict.fromkeys(IN_CANARY, B), **dict.fromkeys(NOT_IN_CANARY, A)}
    assert running.ask(member_id=None, text="words").generation == A
    assert running.ask(member_id=None, post_ids=(PostId(f"{A}-1"),)).generation == A
    assert running.ask(IN_CANARY[0], generation=A).generation == A


def test_a_batch_is_answered_by_each_members_generation(start: Start) -> None:
    running = start(Openings())
    running.take(A, CANARY)
    running.until_serves(A)
    running.until_open(B)
    members = [*IN_CANARY[:3], *NOT_IN_CANARY[:3], *IN_CANARY[3:5]]
    answers = running.served.answer_batch([question_of_member(member) for member in members])
    assert [answer.generation for answer in answers] == [B, B, B, A, A, A, B, B]
    for answer in answers:
        check_one_generation(answer)


def test_the_canary_waits_until_it_is_whole(start: Start) -> None:
    running = start(Openings(not_whole=[B]))
    running.take(A, CANARY)
    running.until_serves(A)
    opened = running.openings[B]
    assert running.ask(IN_CANARY[0]).generation == A
    opened.become_whole()
    until(lambda: running.ask(IN_CANARY[0]).generation == B, "the canary to answer")


def test_where_the_canary_fails_the_serving_one_answers_and_the_canary_is_to_end(start: Start) -> None:
    running = start(Openings())
    running.take(A, CANARY)
    running.until_serves(A)
    running.until_open(B).fails = True
    for member in MEMBERS:
        assert running.ask(member).generation == A
    verdict = running.served.verdict()
    assert verdict is not None
    assert verdict.trial.canary == CANARY
    assert verdict.reason.startswith(f"{len(IN_CANARY)} of its {len(IN_CANARY)} answers failed")
    running.take(A, None, B)
    assert running.served.verdict() is None


def test_a_good_canary_goes_on(start: Start) -> None:
    running = start(Openings())
    running.take(A, CANARY)
    running.until_serves(A)
    running.until_open(B)
    for member in MEMBERS:
        running.ask(member)
    assert running.served.verdict() is None
