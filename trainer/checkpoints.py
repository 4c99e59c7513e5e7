"""The folder beside a package that is in the making: its plan and its checkpoints, what a training goes on from."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from accelerate import PartialState

from encoders.errors import PackageError
from trainer.errors import BadStart, TrainerError

_PLAN_FILE: Final = "plan.json"
_NO_ROOM: Final = 64 * 1024 * 1024
"""A disk with less is taken for full: the libraries do not say why they could not write."""


def work_folder(out: Path) -> Path:
    return out.absolute().parent / f".{out.name}.training"


def open_work(work: Path, record: Mapping[str, Any], *, resume: bool) -> None:
    """Refuses to go on with other events or settings than those of the checkpoints. Raises BadStart."""
    file = work / _PLAN_FILE
    if work.exists() and not resume:
        raise BadStart(f"{work} holds a training that was not finished; go on with --resume, or remove it")
    if resume and not file.exists():
        raise BadStart(f"{work} holds no training to go on with; remove it, and leave --resume out")
    if resume and json.loads(file.read_bytes()) != json.loads(json.dumps(record)):
        raise BadStart(f"{work} was begun with other events, settings or versions; give the same, or remove it")
    if not resume:
        work.mkdir(parents=True)
        file.write_text(json.dumps(record))


def last_checkpoint(work: Path) -> str | None:
    """The newest whole one; what a kill left half-written is taken away. The state is what is written last."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda one: -int(one.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_bytes())
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder)
    return None


@contextmanager
def kept_if_worth_it(work: Path) -> Iterator[None]:
    """What ends before its first checkpoint leaves nothing. A library's error on a full disk becomes BadStart."""
    try:
        yield
    except BaseException as error:
        kept = last_checkpoint(work) if PartialState().is_main_process else str(work)
        full = shutil.disk_usage(work).free < _NO_ROOM
        if kept is None:
            shutil.rmtree(work)
        if full and isinstance(error, Exception) and not isinstance(error, TrainerError | PackageError):
            mend = "make room and go on with --resume" if kept else "make room and begin again"
            raise BadStart(f"the disk of {work.parent} is full; {mend}") from error
        raise
