"""What the settings name and this machine must have: GPUs, and files of certificates.

Checked for all stages at once before their processes are started, and by each process for itself. Knows which stage
uses what.
"""

from collections.abc import Collection

from indexer.cold.qdrant.authorities import read_authorities
from indexer.devices import check_presence
from nearline.settings.settings import Settings
from nearline.up.names import COLD, ENCODE, SERVE
from retriever.http import tls


def check_this_machine(settings: Settings, stages: Collection[str]) -> None:
    """What none of these stages uses may be missing. Raises NoSuchDevice, BadCertificate or TierRefused, which name the
    setting."""
    if SERVE in stages:
        check_presence("hot.device", settings.hot.device)
        tls.server_context(settings.serve)
    if SERVE in stages or ENCODE in stages:
        check_presence("encode.device", settings.encode.device)
    if settings.cold.url is not None and (SERVE in stages or COLD in stages):
        read_authorities(settings.cold)
