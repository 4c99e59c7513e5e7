"""What became of one record in a stage that has effects outside Kafka: done, to be tried again, or never possible."""

from typing import Final, Literal, NamedTuple


class Verdict(NamedTuple):
    """`ok`: its effect is there. `retry`: the infrastructure failed, wait and give it again. `dead`: it can never
    succeed, and `cause` says why in one sentence."""

    result: Literal["ok", "retry", "dead"]
    cause: str = ""


OK: Final = Verdict("ok")
RETRY: Final = Verdict("retry")


def dead(cause: str) -> Verdict:
    return Verdict("dead", cause)
