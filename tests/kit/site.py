"""An instance for tests of commands: a retriever over plain tiers, its cold tier on a socket, and `instance.json`.

What a command is given and what it prints is all real; only the stages are missing.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from indexer.cold.socket_server import ColdServer
from indexer.freshness import FreshnessWindow
from nearline.settings.instance import Instance, ProcessInfo, locked, write_instance
from tests.kit.commands import run_command
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import RetrieverSetup, Served

NOBODY = "127.0.0.1:1"
"""No broker listens here."""


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


class Site(NamedTuple):
    data_dir: Path
    retriever: RetrieverSetup
    instance: Instance

    def rewrite(self, **changes: Any) -> None:
        """Changes what `instance.json` says."""
        write_instance(self.data_dir, msgspec.structs.replace(self.instance, **changes))


class Commands:
    """Runs commands in this process, as the console script does."""

    def __call__(self, *arguments: str | Path) -> Ran:
        done = run_command(arguments)
        return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def site(bootstrap_servers: str = NOBODY) -> Iterator[Site]:
    retriever = RetrieverSetup()
    freshness = FreshnessWindow()
    freshness.add([0.5, 0.5])
    with ExitStack() as stack:
        # A short path: a socket's may not be longer than some hundred characters.
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-site-")))
        served = stack.enter_context(Served(retriever))
        socket = data_dir / "cold.sock"
        server = stack.enter_context(closing(ColdServer(retriever.cold, socket, freshness)))
        server.start()
        instance = Instance(
            supervisor_pid=os.getpid(),
            bootstrap_servers=bootstrap_servers,
            generation=GENERATION,
            package="",
            cold_socket=str(socket),
            url=served.url,
            ready=True,
            processes=[ProcessInfo("broker", 1, 0), ProcessInfo("serve", 2, 3)],
            started_at="2026-01-05T10:00:00Z",
        )
        stack.enter_context(locked(data_dir))
        write_instance(data_dir, instance)
        yield Site(data_dir, retriever, instance)
