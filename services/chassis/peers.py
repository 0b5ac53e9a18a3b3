"""Where a call comes from: the address of who made it, and the opaque name of that address for handlers.

A proxy in front of us is believed what it says in `x-forwarded-for`; anybody else could write there what they like.
Addresses are personal data: they stay in this process's memory, and are never logged, traced or stored.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote

FORWARDED = "x-forwarded-for"
# Of whom we cannot tell where they are: all of them count as one.
UNKNOWN = "unknown"

_KNOWN_ADDRESSES = 10_000
# What one household or one machine is given; within it anybody takes a new address with every call.
_IPV6_PREFIX = 64


class Peers:
    """Tells where calls come from."""

    def __init__(self, trusted_proxies: str, secret: str) -> None:
        """The networks of trusted proxies, comma separated. Raises ValueError for what is no network."""
        self._trusted = [ip_network(each.strip()) for each in trusted_proxies.split(",") if each.strip()]
        self._secret = secret.encode()
        self._find = lru_cache(_KNOWN_ADDRESSES)(self._read)

    def address(self, peer: str, forwarded: str | None) -> str:
        """The address of who made the call, from gRPC's word for the connection and the header."""
        return self._find(peer.rpartition(":")[0], forwarded)

    def name(self, address: str) -> str:
        """The opaque name of an address; the same in all processes that share the secret."""
        return hmac.digest(self._secret, address.encode(), "sha256").hex()[:32]

    def _read(self, host: str, forwarded: str | None) -> str:
        found = _parse(unquote(host.partition(":")[2]))
        # The nearest comes last. Whom a proxy of ours names is the caller, or the next proxy of ours.
        for hop in reversed((forwarded or "").split(",")):
            if found is None or not any(found in network for network in self._trusted):
                break
            named = _parse(hop.strip())
            if named is None:
                break
            found = named
        if isinstance(found, IPv6Address):
            return str(IPv6Network((found, _IPV6_PREFIX), strict=False))
        return UNKNOWN if found is None else str(found)


class Origin(NamedTuple):
    """Where the call at hand comes from; looked at only when somebody asks."""

    peers: Peers
    peer: str
    forwarded: str | None

    @property
    def address(self) -> str:
        """The network address. Never to be shown or kept."""
        return self.peers.address(self.peer, self.forwarded)


_origin: ContextVar[Origin | str | None] = ContextVar("origin", default=None)


def current_peer() -> str | None:
    """The opaque name of where the call comes from: 32 hex digits, alike for all callers behind one address, and in all
    processes with the same PEER_SECRET. None outside a call."""
    origin = _origin.get()
    return origin.peers.name(origin.address) if isinstance(origin, Origin) else origin


def set_origin(origin: Origin) -> None:
    """Makes the rest of this task a call from there. Each call has a task of its own."""
    _origin.set(origin)


@contextmanager
def calling_from(peer: str) -> Iterator[None]:
    """Within the block, work is done for a call from this opaque name."""
    token = _origin.set(peer)
    try:
        yield
    finally:
        _origin.reset(token)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address as gRPC or a proxy writes it: IPv6 perhaps in brackets, or with a zone."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
