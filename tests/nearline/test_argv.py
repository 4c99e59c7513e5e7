import subprocess
import sys

CODE = """
import sys
from pathlib import Path
from nearline import argv
argv.cover("--api-key")
print(*Path("/proc/self/cmdline").read_text().split("\\0")[3:-1], sep="|")
print(*sys.argv[1:], sep="|")
"""


def test_a_secret_is_covered_in_the_process_list_and_known_to_us() -> None:
    arguments = ["up", "--api-key", "hunter2", "--api-key=hunter3", "--port", "0", "hunter2", "--api-key"]
    command = [sys.executable, "-c", CODE, *arguments]
    shown, known, *_ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == "up|--api-key|*******|--api-key=*******|--port|0|hunter2|--api-key"
    assert known.split("|") == arguments
