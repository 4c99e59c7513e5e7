"""How a check says what it has found. A check that could not measure never holds."""

from collections.abc import Iterable

from schemas.generations import GateFigure

_SHOWN_IDS = 3


def at_most(name: str, figure: float, bound: float, note: str) -> GateFigure:
    return GateFigure(name, figure, bound, figure <= bound, note)


def at_least(name: str, figure: float, bound: float, note: str) -> GateFigure:
    return GateFigure(name, figure, bound, figure >= bound, note)


def shown(name: str, figure: float, note: str) -> GateFigure:
    """Without a bound."""
    return GateFigure(name, figure, None, True, note)


def unmeasured(name: str, why: str, bound: float | None = None) -> GateFigure:
    """`why` says in a sentence what is missing, and what to do."""
    return GateFigure(name, None, bound, False, f"not measured: {why}")


def examples(ids: Iterable[str]) -> str:
    """The first ids, for a sentence."""
    return ", ".join(sorted(ids)[:_SHOWN_IDS])
