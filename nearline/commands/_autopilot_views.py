"""What `nearline autopilot status` prints of the log and of what is announced: JSON for scripts, lines for people."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import click

from nearline.autopilot.decision import Next, Plan, decide, newest_of
from nearline.commands._terminal import print_table
from schemas.generations import AutopilotAct, AutopilotWork
from schemas.printable import printable
from schemas.times import to_micros, to_rfc3339
from streams.generations.models import Announced
from streams.generations.state import Generations

_SHOWN_ACTS: Final = 20
_WORDS: Final = {
    "wait": "wait",
    "build": "build {}",
    "gate": "measure the gate of {}",
    "canary": "let {} answer a share of the members",
    "promote": "promote {}",
    "fail": "give up {}",
    "leave": "leave {} to operators",
}
"""For people, by what comes next."""


class View(NamedTuple):
    """What is known at one moment."""

    state: Generations
    announced: Announced
    plan: Plan
    now: datetime


def status_json(view: View) -> dict[str, Any]:
    autopilot, newest, coming = view.state.autopilot, newest_of(view.announced.models), _next(view)
    work = None if autopilot is None else autopilot.work
    return {
        "on": view.state.autopilot_is_on,
        "since": autopilot and _time(autopilot.since),
        "newest_model": newest and newest.generation,
        "work": work and {"generation": work.generation, "step": _step(view, work), "since": _time(work.since)},
        "next": {**coming._asdict(), "until": coming.until and _time(coming.until)},
        "hindrance": (autopilot.hindrance or None) if autopilot is not None else None,
        "failed": dict(autopilot.failed) if autopilot is not None else {},
        "acts": [_act_json(act) for act in (autopilot.history if autopilot is not None else [])],
        "problems": [*(str(damage) for damage in view.state.damages), *view.announced.problems],
    }


def print_status(view: View) -> None:
    shown = status_json(view)
    since = f" since {shown['since']}" if shown["since"] else ""
    work, coming = shown["work"], shown["next"]
    until = f", until {coming['until']}" if coming["until"] else ""
    rows = {
        "autopilot": f"{'on' if shown['on'] else 'off'}{since}",
        "newest model": shown["newest_model"] or "-",
        "works on": f"{work['generation']}: {work['step']}, since {work['since']}" if work else "-",
        "next": f"{_WORDS[coming['what']].format(coming['generation'])}: {coming['why']}{until}",
    }
    if shown["hindrance"]:
        rows["not possible"] = f"{shown['hindrance']}; it is tried again"
    for name, value in rows.items():
        click.echo(f"{name:<12}  {printable(value, 1_000)}")
    if shown["acts"]:
        click.echo()
        acts = shown["acts"][-_SHOWN_ACTS:]
        lines = ((act["at"], act["what"], act["generation"], act["who"], act["reason"]) for act in acts)
        cells = (tuple(None if cell is None else printable(cell, 200) for cell in line) for line in lines)
        print_table(("at", "act", "generation", "who", "reason"), cells)
    for problem in shown["problems"]:
        click.echo(f"problem: {printable(problem, 500)}")


def _next(view: View) -> Next:
    return decide(view.state, view.announced.models, view.plan, view.now)


def _step(view: View, work: AutopilotWork) -> str:
    record = view.state.records.get(work.generation)
    return "gate" if work.step == "build" and record is not None and record.state == "ready" else work.step


def _act_json(act: AutopilotAct) -> dict[str, Any]:
    return {
        "at": _time(act.at),
        "what": act.what,
        "generation": act.generation,
        "who": act.who,
        "reason": act.reason,
    }


def _time(moment: datetime) -> str:
    return to_rfc3339(to_micros(moment.replace(microsecond=0)))
