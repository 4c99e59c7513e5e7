"""A command of nearline that exits at a crash point: `python -m nearline.chaos.command POINT WORDS…`.

Its exit status is `EXIT_STATUS` if it passes the point, and the command's own if it does not.
"""

import runpy
import sys

from streams.kafka import crash_points

if __name__ == "__main__":
    crash_points.arm(sys.argv.pop(1))
    # As a module, and not imported: the commands import the adversary.
    runpy.run_module("nearline", run_name="__main__")
