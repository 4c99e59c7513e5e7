"""Who may vouch for a Qdrant server. Imports no client, because it is asked for at the start of an instance too."""

from indexer.errors import TierRefused
from indexer.settings import ColdSettings


def read_authorities(settings: ColdSettings) -> bytes | None:
    """The certificates in `cold.ca_file`. None: those of the system. Raises TierRefused."""
    file = settings.ca_file
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise TierRefused(
            f"cold.ca_file: {file} cannot be read: {error.strerror}; mend the path, or leave it out to believe whom "
            "the system believes"
        ) from error
