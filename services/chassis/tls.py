"""TLS for gRPC: a server's certificate, and the authority its clients trust, from files that may be replaced any time.

A mounted secret is replaced by moving a link, a file by hand as it comes: what is read meanwhile may be half of each.
So what stands in the files counts only when it is whole. Until then, what was there before goes on, and the log says
so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

log = logging.getLogger(__name__)

# How often a client looks whether the authority was renewed.
CHECK_SECONDS = 5.0
# How long calls under way may go on over the connections before.
CLOSE_SECONDS = 30.0
_BROKEN = (OSError, ValueError, TypeError, UnsupportedAlgorithm)


class Renewed:
    """What stands in some files, as long as it is whole. A broken one at the start raises OSError or ValueError."""

    def __init__(self, files: Sequence[str], check: Callable[[Sequence[bytes]], None]) -> None:
        self._names, self._files = list(files), [Path(file) for file in files]
        self._check = check
        self._refused = ""
        try:
            self.contents = self._read()
            check(self.contents)
        except _BROKEN as error:
            raise ValueError(f"{' and '.join(files)}: {error}") from error

    def renew(self) -> bool:
        """Reads the files again. True when something else stands in them, and counts from now on."""
        try:
            found = self._read()
            if found == self.contents:
                return False
            self._check(found)
        except _BROKEN as error:
            self._refuse(str(error))
            return False
        self.contents, self._refused = found, ""
        log.info("a renewed certificate counts", extra={"files": self._names})
        return True

    def _refuse(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            extra = {"files": self._names, "error": why}
            log.error("a renewed certificate is broken, the one before goes on", extra=extra)

    def _read(self) -> list[bytes]:
        return [file.read_bytes() for file in self._files]


def server_credentials(certificate_file: str, key_file: str) -> grpc.ServerCredentials:
    """A server's credentials. gRPC asks before each handshake, so a renewed certificate is used by the next one."""
    pair = Renewed([certificate_file, key_file], _belong_together)

    def configuration() -> grpc.ServerCertificateConfiguration:
        certificate, key = pair.contents
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def renewed() -> grpc.ServerCertificateConfiguration:
        # None means no change, which gRPC's stubs do not know.
        return configuration() if pair.renew() else None  # type: ignore[return-value]

    return grpc.dynamic_ssl_server_credentials(configuration(), renewed)


class TlsChannel:
    """A channel to a server whose name must be in its certificate, signed by the authority in the file.

    The file may hold several authorities after each other. Once it has been renewed, calls go over new connections;
    those under way end on the old ones.
    """

    def __init__(self, target: str, authority_file: str, options: Sequence[tuple[str, Any]]) -> None:
        self._target, self._options = target, options
        self._authority = Renewed([authority_file], _are_certificates)
        self._checked = monotonic()
        self._channel = self._opened()
        # Of the channel there is now, by kind and path.
        self._methods: dict[tuple[str, str], Callable[..., Any]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, path: str, *coders: Any, **named: Any) -> Callable[..., Any]:
        """The method at this path, as stubs ask for it once and for all."""
        return self._method("unary_unary", path, coders, named)

    def unary_stream(self, path: str, *coders: Any, **named: Any) -> Callable[..., Any]:
        """The same of a method that answers with a stream."""
        return self._method("unary_stream", path, coders, named)

    async def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    def _method(self, kind: str, path: str, coders: Any, named: Any) -> Callable[..., Any]:
        def call(request: Any, **options: Any) -> Any:
            self._renew()
            method = self._methods.get((kind, path))
            if method is None:
                method = self._methods[kind, path] = getattr(self._channel, kind)(path, *coders, **named)
            return method(request, **options)

        return call

    def _renew(self) -> None:
        if monotonic() - self._checked <= CHECK_SECONDS:
            return
        self._checked = monotonic()
        if not self._authority.renew():
            return
        closing = asyncio.create_task(self._channel.close(CLOSE_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._channel = self._opened()
        self._methods.clear()

    def _opened(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self._authority.contents[0])
        return grpc.aio.secure_channel(self._target, credentials, self._options)


def _belong_together(contents: Sequence[bytes]) -> None:
    certificate, key = contents
    own = x509.load_pem_x509_certificates(certificate)[0]
    if own.public_key() != load_pem_private_key(key, None).public_key():
        raise ValueError("the key is not the certificate's")


def _are_certificates(contents: Sequence[bytes]) -> None:
    x509.load_pem_x509_certificates(contents[0])
