"""`nearline ingest`: checks files of events and sends them to their topics."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from nearline.commands._options import InstanceReader, NumberRange, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.errors import BadRecord
    from schemas.ids import Micros
    from streams.operate.event_files import EventFile, Survey
    from streams.settings import KafkaSettings


_MOST_REPORTED: Final = 20
"""Bad lines of one file, and unknown fields. In a file of the wrong kind every line is bad."""


class _SurveyedFile(NamedTuple):
    """A file and what is in it. Events after `latest_us` are bad; None where the times are moved."""

    file: "EventFile"
    survey: "Survey"
    latest_us: "Micros | None"
    shift_us: int


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--rate", type=NumberRange(min=0, min_open=True), metavar="N", help="At most N events a second.")
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
    is reported on stderr as FILE:LINE: reason, at most twenty in a file, and nothing of its file is sent; the exit
    status is then 1. With --skip-bad the good lines are sent and the exit status is 0. Fields that no event has are
    named once a file; they are sent as they are, and nothing reads them.

    \b
    Example:
      nearline ingest events.jsonl.gz
      zcat old/*.gz | nearline ingest --shift-to-now --rate 500 -
    """
    from nearline.ask.connections import Connections
    from nearline.errors import NearlineError
    from nearline.traces import traced
    from streams.operate.event_files import open_events

    kafka = Connections(settings, instance).kafka
    with ExitStack() as stack:
        opened = [stack.enter_context(open_events(name)) for name in files]
        surveyed = _survey(opened, settings, shift_to_now)
        sendable = [each for each in surveyed if skip_bad or each.survey.num_bad == 0]
        with traced("ingest", settings.traces):
            _send(kafka, sendable, rate)
    if len(sendable) < len(surveyed):
        names = ", ".join(each.file.name for each in surveyed if each not in sendable)
        raise NearlineError(f"nothing of {names} was sent because of its bad lines; mend them or use --skip-bad")


def _survey(files: "list[EventFile]", settings: Settings, shift_to_now: bool) -> list[_SurveyedFile]:
    """Reads all files to their end. Prints the first bad lines of each, and the fields that no event has."""
    from nearline.errors import NearlineError
    from schemas.events import MAX_FUTURE_US
    from schemas.ids import Micros
    from schemas.times import now_us
    from streams.operate.event_files import survey

    now = now_us()
    latest_us = None if shift_to_now else Micros(now + MAX_FUTURE_US)
    surveys: list[Survey] = []
    for file in files:
        report = _Report(file.name)
        surveys.append(survey(file, latest_us, report.bad_line))
        report.print(surveys[-1])
    shifts = _shifts(settings, files, surveys, now) if shift_to_now else [0] * len(files)
    surveyed = [
        _SurveyedFile(file, each, latest_us, shift) for file, each, shift in zip(files, surveys, shifts, strict=True)
    ]
    for file, each, _, shift in surveyed:
        if each.oldest_us is not None and each.oldest_us + shift < 0:
            raise NearlineError(
                f"{file.name}: with its newest event moved to now, its oldest would be before 1970; nothing was sent, "
                "mend the times that are far from the others"
            )
    return surveyed


class _Report:
    """Collects what is wrong with one file, and prints it on stderr."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bad_lines: list[tuple[int, BadRecord]] = []

    def bad_line(self, number: int, reason: "BadRecord") -> None:
        if len(self._bad_lines) < _MOST_REPORTED:
            self._bad_lines.append((number, reason))

    def print(self, survey: "Survey") -> None:
        shown = self._bad_lines[:1] if self._is_not_json(survey) else self._bad_lines
        for number, reason in shown:
            click.echo(f"{self._name}:{number}: {reason}", err=True)
        if len(shown) < len(self._bad_lines):
            click.echo(f"{self._name}: none of its first {_MOST_REPORTED} lines is JSON", err=True)
        if survey.num_bad > len(shown):
            click.echo(f"{self._name}: and {survey.num_bad - len(shown)} more bad lines", err=True)
        if survey.unknown:
            names = ", ".join(survey.unknown[:_MOST_REPORTED])
            more = " and more" if len(survey.unknown) > _MOST_REPORTED else ""
            click.echo(f"{self._name}: no event has these fields, nothing reads them: {names}{more}", err=True)

    def _is_not_json(self, survey: "Survey") -> bool:
        """True for a file of another kind: the same reason for each of its first lines would tell nothing more."""
        from schemas.errors import NotJson

        is_long = survey.num_events == 0 and len(self._bad_lines) == _MOST_REPORTED
        return is_long and all(isinstance(reason, NotJson) for _, reason in self._bad_lines)


def _shifts(settings: Settings, files: "list[EventFile]", surveys: "list[Survey]", now_us: int) -> list[int]:
    """By how much the times of each file move. A file that was sent before moves as it did then; all others move by one
    constant."""
    from nearline.commands._time_shifts import TimeShift, TimeShifts, shift_to
    from nearline.settings.data_folder import make_data_folder

    make_data_folder(settings.data_dir)
    shifts = TimeShifts(settings.data_dir)
    remembered = [shifts.find(survey.digest) for survey in surveys]
    pairs = zip(surveys, remembered, strict=True)
    newest = max((survey.newest_us for survey, shift in pairs if shift is None and survey.newest_us), default=now_us)
    new_shift_us = shift_to(now_us, newest)
    return [
        shifts.remember(survey.digest, TimeShift(file.name, new_shift_us)) if shift is None else shift
        for file, survey, shift in zip(files, surveys, remembered, strict=True)
    ]


def _send(kafka: "KafkaSettings", files: list[_SurveyedFile], rate: float | None) -> None:
    from tqdm import tqdm

    from streams.operate.event_files import events
    from streams.operate.ingest import EventSender, wait_for_topics

    started = time.monotonic()
    wait_for_topics(kafka, _print_outage)
    total = sum(each.survey.num_events for each in files)
    bar = tqdm(total=total, unit=" events", disable=not on_terminal())
    with bar, EventSender(kafka, on_outage=_print_outage) as sender:
        for each in files:
            sender.send(events(each.file, each.latest_us, each.shift_us), rate, bar.update)
    took_s = time.monotonic() - started
    click.echo(f"{sender.num_sent} events sent in {took_s:.1f} s ({sender.num_sent / max(took_s, 1e-9):.0f}/s)")


def _print_outage() -> None:
    click.echo("the broker does not answer; nothing is lost, waiting for it (Ctrl-C gives up)", err=True)
