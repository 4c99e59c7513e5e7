"""Certificates of an authority made for the test, for tests of TLS."""

from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """PEM files. The first holds the whole chain: the certificate, then that of its authority."""

    certificate_file: Path
    private_key_file: Path
    ca_file: Path

    def settings(self) -> dict[str, Path]:
        return {"certificate_file": self.certificate_file, "private_key_file": self.private_key_file}

    def environment(self) -> dict[str, str]:
        return {f"NEARLINE_SERVE__{name.upper()}": str(path) for name, path in self.settings().items()}


def certificate(folder: Path, name: str, authority: trustme.CA | None = None) -> Certificate:
    """Issues a certificate for this host name or address, in files named after it."""
    authority = authority or trustme.CA()
    issued = authority.issue_cert(name)
    files = Certificate(*(folder / f"{name}.{kind}.pem" for kind in ("chain", "key", "ca")))
    files.certificate_file.write_bytes(issued.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
    issued.private_key_pem.write_to_path(files.private_key_file)
    authority.cert_pem.write_to_path(files.ca_file)
    return files
