"""A broker that asks for a password, and has a certificate of an authority made for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from nearline.broker.embedded import EmbeddedBroker
from nearline.ports import free_ports
from tests.kit.certificates import Certificate, certificate

HOST: Final = "127.0.0.1"
PASSWORD: Final = "a-password-that-nobody-may-see"
LOGIN: Final = {"sasl.mechanism": "PLAIN", "sasl.username": "nearline", "sasl.password": PASSWORD}


class StrictBroker:
    """Listens on four ports: without protection for itself, with a password, with TLS, and with both."""

    def __init__(self, folder: Path, properties: Mapping[str, str]) -> None:
        self.certified = certificate(folder, HOST)
        plain, controller, *doors = free_ports(5)
        self.ports = dict(zip(("SASL_PLAINTEXT", "SSL", "SASL_SSL"), doors, strict=True))
        (folder / "kafka").mkdir()
        (folder / "kafka" / "ports.json").write_text(json.dumps({"port": plain, "controller_port": controller}))
        self.embedded = EmbeddedBroker(
            folder / "kafka", properties={**self._properties(plain, controller), **properties}
        )

    def settings(self, protocol: str, **more: str) -> dict[str, Any]:
        """The section [kafka] of the settings for this protocol."""
        trust = {"ssl.ca.location": str(self.certified.ca_file)} if protocol.endswith("SSL") else {}
        login = LOGIN if protocol.startswith("SASL") else {}
        options = {"security.protocol": protocol, **trust, **login, **more}
        return {"bootstrap_servers": f"{HOST}:{self.ports[protocol]}", "options": options, "partitions": 2}

    def _properties(self, plain: int, controller: int) -> dict[str, str]:
        doors = {"PLAINTEXT": plain, **self.ports}
        listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in doors.items())
        protocols = ",".join(f"{name}:{name}" for name in doors)
        login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_nearline="{PASSWORD}";'
        return {
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{protocols}",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            **{f"listener.name.{name}.plain.sasl.jaas.config": login for name in ("sasl_plaintext", "sasl_ssl")},
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(_keystore(self.certified)),
        }


def _keystore(certified: Certificate) -> Path:
    """Kafka wants the key in PKCS 8, and the chain in the same file."""
    key = load_pem_private_key(certified.private_key_file.read_bytes(), None)
    body = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    store = certified.private_key_file.with_name("keystore.pem")
    store.write_bytes(body + certified.certificate_file.read_bytes())
    return store
