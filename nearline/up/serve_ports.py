"""The ports of the retriever's processes: chosen once, so that a restarted process listens where it did before."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from nearline.ports import free_ports, free_ports_in_a_row, held, listening_port
from retriever.settings import ServeSettings


@contextmanager
def named_ports(serve: ServeSettings) -> Iterator[ServeSettings]:
    """The settings with a number for each port. Several workers share two of the ports; these are held for them within
    the context, so that no other instance can share them too. Raises StartFailed."""
    serve = _with_ports(serve)
    shared = (serve.port, serve.port_of_grpc)
    with nullcontext() if serve.workers == 1 else held(serve.host, shared):
        yield serve if serve.workers == 1 else _with_worker_port(serve)


def _with_ports(serve: ServeSettings) -> ServeSettings:
    if serve.port == serve.port_of_grpc == 0:
        port, grpc_port = (listening_port(serve.host, free) for free in free_ports(2))
    else:
        port, grpc_port = (listening_port(serve.host, wanted) for wanted in (serve.port, serve.port_of_grpc))
    return serve.model_copy(update={"port": port, "grpc_port": grpc_port})


def _with_worker_port(serve: ServeSettings) -> ServeSettings:
    if serve.worker_port is None:
        return serve.model_copy(update={"worker_port": free_ports_in_a_row(serve.workers)})
    for worker in range(serve.workers):
        listening_port(serve.host, serve.worker_port + worker, "choose another serve.worker_port")
    return serve
