"""Personal data at rest: encrypted with keys that can be rotated."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from shop.shipping.v1 import shipping_pb2 as pb


class Unreadable(Exception):
    """None of our keys opens it."""


class AddressSeal:
    """Seals addresses with the newest key, and opens what any of the keys has sealed."""

    def __init__(self, keys: str) -> None:
        """`keys`: url-safe base64 of 32 bytes each, comma separated, newest first. Raises ValueError."""
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])

    def seal(self, address: pb.Address) -> bytes:
        """The address, unreadable."""
        return self._fernet.encrypt(address.SerializeToString())

    def open(self, sealed: bytes) -> pb.Address:
        """The address. Raises `Unreadable`."""
        try:
            return pb.Address.FromString(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise Unreadable("no key opens it") from None
