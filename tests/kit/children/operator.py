"""An operator that changes the generations, in a process of its own:
`python -m tests.kit.children.operator BOOTSTRAP [CRASH_POINT:PASSES]`.

It writes the records of `tests.kit.data.generations.two_live`: first the one that serves, if nothing was ever founded,
and else the other one, as ready."""

import sys

from streams.generations.log import change_generations
from streams.settings import KafkaSettings
from tests.kit.children import arm_crash_point
from tests.kit.data.generations import next_records


def main(bootstrap_servers: str, crash: str = "") -> None:
    arm_crash_point(crash)
    change_generations(KafkaSettings(bootstrap_servers=bootstrap_servers), next_records)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
