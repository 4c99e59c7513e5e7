"""The work folder beside a package that is being trained: the plan and the checkpoints that a training resumes from.

Owns when the folder is made, resumed and removed. Knows no model: the trainer writes the checkpoints.
"""

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
_FULL_DISK_BYTES: Final = 64 * 1024 * 1024
"""A disk with less free space is taken to be full: the libraries do not say why they could not write."""


def work_folder(out: Path) -> Path:
    return out.absolute().parent / f".{out.name}.training"


def open_work(work: Path, record: Mapping[str, Any], *, resume: bool) -> None:
    """Makes the folder, or checks that it is of this plan: a training is not resumed with other events or settings.
    Raises BadStart."""
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
    """The newest complete checkpoint; newer ones that a kill left half-written are removed. A checkpoint is complete
    when its trainer state can be read: that file is written last."""
    for folder in sorted(work.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            json.loads((folder / "trainer_state.json").read_bytes())
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder)
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def keep_checkpoints(work: Path) -> Iterator[None]:
    """When the training inside fails, the folder stays if a training can go on from it, and else is removed. A
    library's error on a full disk becomes BadStart."""
    try:
        yield
    except BaseException as error:
        is_resumable = not PartialState().is_main_process or _is_resumable(work)
        is_full = shutil.disk_usage(work).free < _FULL_DISK_BYTES
        if not is_resumable:
            shutil.rmtree(work)
        if is_full and isinstance(error, Exception) and not isinstance(error, TrainerError | PackageError):
            mend = "make room and go on with --resume" if is_resumable else "make room and begin again"
            raise BadStart(f"the disk of {work.parent} is full; {mend}") from error
        raise


def _is_resumable(work: Path) -> bool:
    """Whether there is a checkpoint, or what a training on an inner split has come to."""
    folders = [work, *work.glob("inner-*")]
    checkpoints = [last_checkpoint(folder) for folder in folders]
    return any(checkpoints) or any(work.glob("inner-*/measurements.json"))
