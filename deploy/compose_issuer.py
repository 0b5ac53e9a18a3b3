"""The OIDC issuer of the compose file: tokens for the services in a shared volume, the public key over HTTP.

    python -m deploy.compose_issuer                                  serve
    python -m deploy.compose_issuer token customer customer_id=C1    print a person's token
    python -m deploy.compose_issuer answers                          exit code 0 if it serves

It runs in the image of the services, so it uses only what that has.
"""

import json
import sys
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.local.tokens import Issuer

URL = "http://issuer:8080"
KEYS = "/jwks.json"
SERVICES = ("inventory", "catalog", "shipping", "loyalty", "contact")
TOKENS = Path("/run/tokens")


def write_tokens(issuer: Issuer, folder: Path) -> None:
    """One token for each service, in a file of its name."""
    for service in SERVICES:
        (folder / service).write_text(issuer.mint("service", service=service))


def server(issuer: Issuer, host: str, port: int) -> ThreadingHTTPServer:
    """Answers the key set at its path and 404 elsewhere; not yet serving."""
    keys = json.dumps(issuer.jwks()).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == KEYS
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(keys if found else b"{}")

        def log_message(self, *_: object) -> None:
            """Says nothing for each request."""

    return ThreadingHTTPServer((host, port), Handler)


def main(arguments: Sequence[str]) -> None:
    """Run one of the commands above. Raises ValueError for a role nobody has."""
    # In a folder of the volume that only root can enter, so that the services see tokens and no key.
    private = TOKENS / "issuer"
    private.mkdir(mode=0o700, exist_ok=True)
    issuer = Issuer(URL, private / "key.pem")
    match list(arguments):
        case ["answers"]:
            urllib.request.urlopen(f"http://127.0.0.1:8080{KEYS}", timeout=2).close()
        case ["token", role, *claims]:
            print(issuer.mint(role, None, **dict(claim.split("=", 1) for claim in claims)))
        case _:
            write_tokens(issuer, TOKENS)
            server(issuer, "0.0.0.0", 8080).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
