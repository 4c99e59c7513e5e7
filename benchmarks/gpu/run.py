"""One run of all parts: what was measured, what failed, what was left out, and the time that is left.

Everything is written to the JSON file after each arm, so that whoever kills the run has what it measured until then. An
arm that fails is noted, and the next one begins. When the time is over, the process ends wherever it is.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from benchmarks.gpu.device import Device
from benchmarks.gpu.models import Models
from benchmarks.gpu.sizes import Sizes
from benchmarks.kit.table import Figure, report

Arm = Callable[[], Iterable[Figure]]
"""Gives its figures one by one; those before a failure count."""

_END_S: Final = 5.0
"""For the table, and for what a kill leaves to do."""


class Part(NamedTuple):
    name: str
    needs_s: float
    """About how long it takes; it does not begin with less time left."""
    measure: "Callable[[Run], None]"


class LeftOut(Exception):
    """An arm cannot run here. The message says why."""


class Run:
    def __init__(
        self,
        device: Device,
        sizes: Sizes,
        folder: Path,
        *,
        about: dict[str, Any],
        json_path: Path | None,
        minutes: float,
    ) -> None:
        """`folder` holds the packages, and is removed by whoever made it. `about`: what stands above the figures."""
        self.device = device
        self.sizes = sizes
        self.folder = folder
        self.models = Models(device, sizes, folder)
        self.figures: list[Figure] = []
        self._about = about
        self._json_path = json_path
        self._began = time.monotonic()
        self._limit_s = minutes * 60
        self._lock = threading.RLock()
        self._rows: list[dict[str, Any]] = []
        self._failed: list[dict[str, str]] = []
        self._left_out: list[dict[str, str]] = []
        self._now = ""
        """The arm that is running."""
        self._to_do: list[Part] = []
        """The part that is running, and those after it."""
        self._at_exit: list[Callable[[], object]] = []

    @property
    def left_s(self) -> float:
        return self._limit_s - (time.monotonic() - self._began)

    def aim(self, aim: float | None) -> float | None:
        """The bound of a speed, and of whatever else tiny sizes say nothing about."""
        return aim if self.sizes.has_aims else None

    def parts(self, parts: "Iterable[Part]") -> None:
        """Runs one after the other those that take no longer than what is left, and ends when the time is over."""
        self._to_do = list(parts)
        timer = threading.Timer(max(1.0, self.left_s - _END_S), self._out_of_time)
        timer.daemon = True
        timer.start()
        while self._to_do:
            part = self._to_do[0]
            if self.left_s < part.needs_s:
                seconds = max(0.0, self.left_s)
                self.leave_out(part.name, f"it takes about {part.needs_s:.0f} s, and {seconds:.0f} s were left")
            else:
                self._part(part)
            self._to_do.pop(0)
        timer.cancel()

    def _part(self, part: "Part") -> None:
        print(f"\n{part.name} ({self.left_s:.0f} s left)", flush=True)
        try:
            part.measure(self)
        except Exception as error:
            self._fail(part.name, error)
        self.device.free()

    def arm(self, name: str, measure: Arm) -> None:
        """Runs one arm of a part. Its figures begin with its name."""
        self._now, began = name, time.monotonic()
        try:
            for figure in measure():
                self._add(figure._replace(name=f"{name}: {figure.name}"))
        except LeftOut as reason:
            self.leave_out(name, str(reason))
        except Exception as error:
            self._fail(name, error)
        self._now = ""
        print(f"  {name}: {time.monotonic() - began:.1f} s", flush=True)
        self._write(finished=False)
        self.device.free()

    def leave_out(self, what: str, why: str) -> None:
        print(f"  left out: {what}: {why}", flush=True)
        with self._lock:
            self._left_out.append({"what": what, "why": why})
        self._write(finished=False)

    def at_exit(self, action: Callable[[], object]) -> None:
        """Called when the time is over, before the process ends: what must not outlive it."""
        self._at_exit.append(action)

    def finish(self) -> int:
        """Prints the table. The exit status: 0 if everything that was measured holds its bound, and nothing failed."""
        with self._lock:
            self._write(finished=True)
            status = report(self.figures) if self.figures else 1
            for entry in self._left_out:
                print(f"left out: {entry['what']}: {entry['why']}")
            for entry in self._failed:
                print(f"failed: {entry['what']}: {entry['error']}")
            sys.stdout.flush()
            return 1 if self._failed else status

    def _out_of_time(self) -> NoReturn:
        status = 1
        try:
            with self._lock:
                begun, *not_begun = [part.name for part in self._to_do] or [self._now]
                self._left_out += [
                    {"what": what, "why": "the time was over"}
                    for what in (f"the rest of {begun}, from {self._now or 'its next arm'} on", *not_begun)
                ]
                status = self.finish()
                for action in reversed(self._at_exit):
                    action()
        finally:
            os._exit(status)

    def _add(self, figure: Figure) -> None:
        row = {"figure": figure.name, "value": figure.value, "bound": figure.bound, "sense": figure.sense}
        with self._lock:
            self.figures.append(figure)
            self._rows.append({**row, "holds": figure.holds})

    def _fail(self, what: str, error: Exception) -> None:
        traceback.print_exception(error)
        with self._lock:
            self._failed.append({"what": what, "error": f"{type(error).__name__}: {error}"[:1_000]})
        # The traceback's frames would keep the arm's tensors.
        error.__traceback__ = None
        self._write(finished=False)

    def _write(self, *, finished: bool) -> None:
        if self._json_path is None:
            return
        with self._lock:
            seconds = round(time.monotonic() - self._began, 1)
            whole = {**self._about, "seconds": seconds, "finished": finished}
            whole |= {"figures": self._rows, "failed": self._failed, "left_out": self._left_out}
            temporary = self._json_path.with_name(f"{self._json_path.name}.tmp")
            temporary.write_text(json.dumps(whole, indent=2) + "\n")
            temporary.replace(self._json_path)
