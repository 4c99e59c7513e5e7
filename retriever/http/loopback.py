"""Who may ask a server that listens on loopback and asks for no key: only who calls it by a name of loopback.

A browser lets the page of a site read what is answered at the site's name, also if that name was made to lead to this
machine (DNS rebinding). Only the `Host` of its requests says so. The retriever and the operators' page share this rule.

Imports little, because the monitor imports it.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether the name or address is one of loopback, without asking anybody."""
    name = host.lower().removesuffix(".")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        # Browsers ask nobody where names below localhost lead.
        return name == "localhost" or name.endswith(".localhost")


def are_of_loopback(hosts: Iterable[str]) -> bool:
    """Whether all values of the header `Host` are names or addresses of loopback, with or without a port. True if there
    is none: browsers always send one."""
    return all(is_loopback(_name(host)) for host in hosts)


def _name(host: str) -> str:
    """Without the port; empty if it is no `Host`."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:@/\[\]]+))(?::\d*)?", host.strip())
    return match[1] or match[2] if match else ""
