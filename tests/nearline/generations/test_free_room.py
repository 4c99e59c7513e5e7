"""How much memory and disk is free: read from files as a kernel shows them, and from those of this machine."""

import shutil
from pathlib import Path

import pytest

from nearline.generations.free_room import free_disk, free_memory

MEMINFO = "MemTotal:       24684084 kB\nMemFree:         6986384 kB\nMemAvailable:   10000000 kB\n"
AVAILABLE = 10_000_000 * 1024
MB = 1_000_000


class Kernel:
    """The files in which a kernel says what is used."""

    def __init__(self, folder: Path, groups: str) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroups"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text(MEMINFO)
        (self.proc / "self" / "cgroup").write_text(groups)

    def v1(self, path: str, limit: int, used: int, cached: int) -> None:
        self._write(
            self.cgroups / "memory" / path,
            {
                "memory.limit_in_bytes": f"{limit}\n",
                "memory.usage_in_bytes": f"{used}\n",
                "memory.stat": f"cache {cached}\ninactive_file 1\ntotal_inactive_file {cached}\n",
            },
        )

    def v2(self, path: str, limit: str, used: int, cached: int) -> None:
        self._write(
            self.cgroups / path,
            {
                "memory.max": f"{limit}\n",
                "memory.current": f"{used}\n",
                "memory.stat": f"anon 5\ninactive_file {cached}\nactive_file 7\n",
            },
        )

    def _write(self, folder: Path, files: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    def free(self) -> int:
        return free_memory(self.proc, self.cgroups)


def test_without_a_limit_it_is_what_the_kernel_can_give(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/user.slice\n")
    assert kernel.free() == AVAILABLE, "the root has no files of a limit"
    kernel.v2("user.slice", "max", 900 * MB, 100 * MB)
    assert kernel.free() == AVAILABLE


def test_a_group_of_the_second_version_may_use_what_it_has_not_used_or_can_drop(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/outer/inner\n")
    kernel.v2("outer/inner", str(1_000 * MB), 900 * MB, 100 * MB)
    assert kernel.free() == 200 * MB
    kernel.v2("outer", str(950 * MB), 900 * MB, 100 * MB)
    assert kernel.free() == 150 * MB, "the groups around it limit it too"
    kernel.v2("outer", str(500 * MB), 900 * MB, 100 * MB)
    assert kernel.free() == 0, "a limit may be set below what is used"


def test_a_group_of_the_first_version(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "9:cpu,cpuacct:/jobs\n4:memory:/jobs/7\n0::/\n")
    kernel.v1("jobs/7", 1_000 * MB, 900 * MB, 100 * MB)
    assert kernel.free() == 200 * MB
    kernel.v1("jobs/7", 9_223_372_036_854_771_712, 900 * MB, 0)
    assert kernel.free() == AVAILABLE, "this number stands for no limit"


@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container_whose_path_is_that_outside_it(tmp_path: Path, version: int) -> None:
    kernel = Kernel(tmp_path, "4:memory:/docker/0123\n" if version == 1 else "0::/../docker/0123\n")
    if version == 1:
        kernel.v1("", 1_000 * MB, 900 * MB, 0)
    else:
        kernel.v2("", str(1_000 * MB), 900 * MB, 0)
    assert kernel.free() == 100 * MB


def test_this_machine(tmp_path: Path) -> None:
    total_kb = int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < free_memory() <= total_kb * 1024
    there = free_disk(tmp_path)
    assert there == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert free_disk(tmp_path / "not" / "there" / "yet") == pytest.approx(there, rel=0.05)
