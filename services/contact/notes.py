"""The words of notes: personal data, encrypted wherever they lie."""

from __future__ import annotations

from cryptography.fernet import Fernet, MultiFernet


class Notes:
    """Encrypts with the first key; decrypts with any of them, so that keys can be changed."""

    def __init__(self, keys: str) -> None:
        """`keys` are Fernet keys, comma separated. Raises ValueError for one that is none."""
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])

    def encrypt(self, text: str) -> bytes:
        """The text as it may be stored."""
        return self._fernet.encrypt(text.encode())

    def decrypt(self, stored: bytes) -> str:
        """The text again. Raises cryptography's InvalidToken when no key fits."""
        return self._fernet.decrypt(stored).decode()
