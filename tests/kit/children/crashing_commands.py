"""Commands that crash at a crash point, forked from a process that has already loaded what they import:
`python -m tests.kit.children.crashing_commands`.

Each line of its input is a JSON list: a crash point (see `arm_crash_point`; empty for none) and a command's words. It
answers with the exit status."""

import json
import os
import sys

from nearline import cli
from nearline.commands import _generation_acts  # noqa: F401
from nearline.generations import building, retiring  # noqa: F401
from tests.kit.children import arm_crash_point


def main() -> None:
    for line in sys.stdin:
        crash, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(crash, words)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(crash: str, words: list[str]) -> None:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        arm_crash_point(crash)
        sys.argv = ["nearline", *words]
        cli.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
