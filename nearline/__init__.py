"""nearline: from a live event to 2000 candidates in seconds.

Exports the client of the retriever: `nearline.Client`, `nearline.AsyncClient` and what they take and give. Each name is
imported when it is first used, so that `import nearline` imports nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearline.client.answer import Answer as Answer
    from nearline.client.answer import PostVector as PostVector
    from nearline.client.answer import Reason as Reason
    from nearline.client.answer import Status as Status
    from nearline.client.answer import Vectors as Vectors
    from nearline.client.async_client import AsyncClient as AsyncClient
    from nearline.client.client import Client as Client
    from nearline.client.question import Question as Question
    from nearline.client.question import Trace as Trace
    from retriever.errors import BadCertificate as BadCertificate
    from retriever.errors import DeadlineExceeded as DeadlineExceeded
    from retriever.errors import NotAllowed as NotAllowed
    from retriever.errors import RequestRefused as RequestRefused
    from retriever.errors import RetrieverBusy as RetrieverBusy
    from retriever.errors import RetrieverError as RetrieverError
    from retriever.errors import RetrieverUnavailable as RetrieverUnavailable

_MODULES = {
    "nearline.client.client": ("Client",),
    "nearline.client.async_client": ("AsyncClient",),
    "nearline.client.question": ("Question", "Trace"),
    "nearline.client.answer": ("Answer", "PostVector", "Reason", "Status", "Vectors"),
    "retriever.errors": (
        "BadCertificate",
        "DeadlineExceeded",
        "NotAllowed",
        "RequestRefused",
        "RetrieverBusy",
        "RetrieverError",
        "RetrieverUnavailable",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'nearline' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
