"""One process of the adversary's pipeline: a process of `nearline up` that can be made to crash or lose its cold tier.

`python -m nearline.chaos.process NAME DATA_DIR`, started by `nearline/chaos/up.py`. Two files beside the data folder
say what has to go wrong. Production's `nearline/up/` knows nothing of them.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from indexer.cold.edge.tier import EdgeColdTier
from nearline.chaos.crash_file import arm_from_file
from nearline.chaos.flaky_cold_tier import FlakyColdTier
from nearline.up.build import build
from nearline.up.process import leave, run_process


def crash_file(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}-crashes.json")


def cold_faults_file(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}-cold-faults")


def main(name: str, data_dir: Path) -> int:
    arm_from_file(crash_file(data_dir), name.partition("-")[0])

    def make_edge_tier(*parameters: Any, **options: Any) -> EdgeColdTier:
        return FlakyColdTier(cold_faults_file(data_dir), *parameters, **options)

    return run_process(name, data_dir, partial(build, make_edge_tier=make_edge_tier))


if __name__ == "__main__":
    leave(main(sys.argv[1], Path(sys.argv[2])))
