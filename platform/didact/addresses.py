"""Addresses that nobody means who names a data set or a model: those of clouds' metadata services.

They hand out the machine's own keys to whoever asks from it, so a recipe or a redirect that leads there would take them
along. Link-local addresses as a whole are refused, and the few others where such services are known to be.
"""

import ipaddress
import socket

from didact import env
from didact.errors import DidactError

_ELSEWHERE = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "192.0.0.192")))
"""Of Alibaba, Amazon over IPv6, Oracle."""


class AddressRefused(DidactError, ValueError):
    """Nothing may be asked of this address."""


def check_address(address: str) -> None:
    """Refuse one address of the network, where `DIDACT_ALLOWED_ADDRESSES` does not name it.

    Args:
        address: IPv4 or IPv6, as a resolver tells it.

    Raises:
        AddressRefused: link-local, or of a metadata service.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or found
    if not (inner.is_link_local or inner in _ELSEWHERE) or str(inner) in env.allowed_addresses():
        return
    raise AddressRefused(
        f"{inner} is a link-local or metadata address, which hands out this machine's keys; expected one of data or "
        f"models. DIDACT_ALLOWED_ADDRESSES={inner} allows it"
    )


def check_host(host: str) -> None:
    """Refuse a host if any of its addresses is refused; one that has none is left to whoever connects.

    Raises:
        AddressRefused: as `check_address`.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for each in found:
        check_address(str(each[4][0]))
