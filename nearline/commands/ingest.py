"""`nearline ingest`: files of events into their topics."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.ids import Micros
    from streams.operate.event_files import EventFile, Survey
    from streams.settings import KafkaSettings


_MOST_REPORTED: Final = 20
"""Bad lines, and unknown fields, of one file. A wrong file is bad in every line."""


class _Looked(NamedTuple):
    """A file and what is in it. `latest_us` bounds its times where they stay as they are."""

    file: "EventFile"
    survey: "Survey"
    latest_us: "Micros | None"
    shift_us: int


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N events a second.")
@click.option("--skip-bad", is_flag=True, help="Send the good lines of a file with bad ones.")
@click.option(
    "--shift-to-now",
    is_flag=True,
    help="Move all times by one constant, so that the last is now. The same file sent again moves by the same.",
)
@instance_options
def ingest(
    *,
    files: tuple[str, ...],
    rate: float | None,
    skip_bad: bool,
    shift_to_now: bool,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Check events, one JSON object a line, and send them to their topics.

    FILE may be gzipped; `-` is standard input. Every file is read to its end before the first event is sent. A bad line
    is reported on stderr as FILE:LINE: reason, the first twenty of a file, and nothing of its file is sent; the exit
    status is then 1. With --skip-bad the good lines are sent and the exit status is 0. Fields that no event has are
    named once a file; they are sent as they are, and nothing reads them.

    \b
    Example:
      nearline ingest events.jsonl.gz
      zcat old/*.gz | nearline ingest --shift-to-now --rate 500 -
    """
    from nearline.ask.connections import Connections
    from nearline.errors import NearlineError
    from streams.operate.event_files import open_events

    kafka = Connections(settings, instance).kafka
    with ExitStack() as stack:
        opened = [stack.enter_context(open_events(name)) for name in files]
        looked = _look(opened, settings, shift_to_now)
        good = [one for one in looked if skip_bad or one.survey.num_bad == 0]
        _send(kafka, good, rate)
    if len(good) < len(looked):
        names = ", ".join(one.file.name for one in looked if one not in good)
        raise NearlineError(f"nothing of {names} was sent because of its bad lines; mend them or use --skip-bad")


def _look(files: "list[EventFile]", settings: Settings, shift_to_now: bool) -> list[_Looked]:
    """Reports the first bad lines of every file, and the fields that nobody reads."""
    from nearline.errors import NearlineError
    from schemas.events import MAX_FUTURE_US
    from schemas.ids import Micros
    from schemas.times import now_us
    from streams.operate.event_files import survey

    now = now_us()
    latest_us = None if shift_to_now else Micros(now + MAX_FUTURE_US)
    reports = [_Report(file.name) for file in files]
    surveys = [survey(file, latest_us, report.bad_line) for file, report in zip(files, reports, strict=True)]
    for found, report in zip(surveys, reports, strict=True):
        report.end(found)
    shifts = _shifts(settings, files, surveys, now) if shift_to_now else [0] * len(files)
    looked = [_Looked(file, found, latest_us, shift) for file, found, shift in zip(files, surveys, shifts, strict=True)]
    for file, found, _, shift in looked:
        if found.oldest_us is not None and found.oldest_us + shift < 0:
            raise NearlineError(
                f"{file.name}: with its newest event moved to now, its oldest would be before 1970; nothing was sent, "
                "mend the times that are far from the others"
            )
    return looked


class _Report:
    """What is said of one file, on stderr."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._num_reported = 0

    def bad_line(self, number: int, reason: str) -> None:
        if self._num_reported < _MOST_REPORTED:
            self._num_reported += 1
            click.echo(f"{self._name}:{number}: {reason}", err=True)

    def end(self, survey: "Survey") -> None:
        if survey.num_bad > self._num_reported:
            click.echo(f"{self._name}: and {survey.num_bad - self._num_reported} more bad lines", err=True)
        if survey.unknown:
            names = ", ".join(survey.unknown[:_MOST_REPORTED])
            more = " and more" if len(survey.unknown) > _MOST_REPORTED else ""
            click.echo(f"{self._name}: no event has these fields, nothing reads them: {names}{more}", err=True)


def _shifts(settings: Settings, files: "list[EventFile]", surveys: "list[Survey]", now_us: int) -> list[int]:
    """What is remembered of a file holds; all the others move by one constant."""
    from nearline.commands._time_shifts import TimeShift, TimeShifts, shift_to

    shifts = TimeShifts(settings.data_dir)
    remembered = [shifts.find(found.digest) for found in surveys]
    pairs = zip(surveys, remembered, strict=True)
    newest = max((found.newest_us for found, shift in pairs if shift is None and found.newest_us), default=now_us)
    fresh = shift_to(now_us, newest)
    return [
        shifts.remember(found.digest, TimeShift(file.name, fresh)) if shift is None else shift
        for file, found, shift in zip(files, surveys, remembered, strict=True)
    ]


def _send(kafka: "KafkaSettings", looked: list[_Looked], rate: float | None) -> None:
    from tqdm import tqdm

    from streams.operate.event_files import events
    from streams.operate.ingest import EventSender, wait_for_topics

    started = time.monotonic()
    wait_for_topics(kafka, _say_outage)
    total = sum(one.survey.num_events for one in looked)
    bar = tqdm(total=total, unit=" events", disable=not on_terminal())
    with bar, EventSender(kafka, on_outage=_say_outage) as sender:
        for one in looked:
            sender.send(events(one.file, one.latest_us, one.shift_us), rate, bar.update)
    took_s = time.monotonic() - started
    click.echo(f"{sender.num_sent} events sent in {took_s:.1f} s ({sender.num_sent / max(took_s, 1e-9):.0f}/s)")


def _say_outage() -> None:
    click.echo("the broker does not answer; nothing is lost, waiting for it (Ctrl-C gives up)", err=True)
