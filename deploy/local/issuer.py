"""A small OIDC issuer for local runs: discovery and keys, so that services check tokens as they would anywhere.

python -m deploy.local.issuer --key <file> --port <port>
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aiohttp import web

from .part import Part, Say
from .ports import HOST, Ports
from .supervision import Program
from .tokens import ALGORITHM, Issuer
from .zipkin import answers

KEYS = "/jwks.json"
DISCOVERY = "/.well-known/openid-configuration"


def issuer(state: Path, ports: Ports) -> Issuer:
    return Issuer(f"http://{HOST}:{ports['issuer']}", state / "issuer.pem")


def part(state: Path, ports: Ports) -> Part:
    here = issuer(state, ports)
    command = [sys.executable, "-m", "deploy.local.issuer"]
    command += ["--key", str(here.key_file), "--port", str(ports["issuer"])]

    def prepare(say: Say) -> None:
        here.jwks()  # makes the key

    return Part(
        Program("issuer", command),
        is_ready=lambda: answers(here.url + KEYS),
        ports=("issuer",),
        prepare=prepare,
    )


def application(issuer: Issuer) -> web.Application:
    async def keys(request: web.Request) -> web.Response:
        return web.json_response(issuer.jwks())

    async def discovery(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": issuer.url,
                "jwks_uri": issuer.url + KEYS,
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
            }
        )

    application = web.Application()
    application.router.add_get(KEYS, keys)
    application.router.add_get(DISCOVERY, discovery)
    return application


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--key", type=Path, required=True)
    arguments.add_argument("--port", type=int, required=True)
    given = arguments.parse_args()
    served = application(Issuer(f"http://{HOST}:{given.port}", given.key))
    web.run_app(served, host=HOST, port=given.port, print=None)


if __name__ == "__main__":
    main()
