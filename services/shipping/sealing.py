"""Personal data at rest: encrypted with keys that can be rotated."""

from __future__ import annotations

from cryptography.fernet import Fernet, MultiFernet

from shop.shipping.v1 import shipping_pb2 as pb


class AddressSeal:
    """Seals addresses with the newest key. The others are those that still open what they sealed."""

    def __init__(self, keys: str) -> None:
        """`keys`: url-safe base64 of 32 bytes each, comma separated, newest first. Raises ValueError."""
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])

    def seal(self, address: pb.Address) -> bytes:
        """The address, unreadable."""
        return self._fernet.encrypt(address.SerializeToString())
