"""The map of the shop: who calls whom and who hears what, read from the services' own declarations.

`python -m deploy.map` writes it into the README between two markers; a test keeps it fresh.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.chassis.facts import Hears, Topic

SERVICES = ("inventory", "catalog", "shipping", "loyalty", "contact")
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- map: written by `make map` -->", "<!-- map ends -->"


@dataclass(frozen=True, slots=True)
class Declared:
    """What one service says of itself."""

    name: str
    publishes: Sequence[Topic]
    hears: Sequence[Hears]
    calls: Sequence[str]


def declared(service: str) -> Declared:
    """Reads PUBLISHES, HEARS and CALLS; a module a service does not have says nothing."""
    return Declared(
        service,
        _table(service, "publishes", "PUBLISHES"),
        _table(service, "consumers", "HEARS"),
        _table(service, "clients", "CALLS"),
    )


def facts_heard(hears: Hears) -> list[str]:
    """The short names of the facts a line of HEARS handles."""
    return sorted(kind.DESCRIPTOR.name for kind in (*hears.handlers, *hears.batch_facts))


def drawn(services: Sequence[Declared]) -> str:
    """The map as Markdown."""
    calls = ["| Caller | Calls over gRPC |", "|---|---|"]
    calls += [f"| {service.name} | {', '.join(service.calls) or '-'} |" for service in services]
    topics = ["| Topic | Told by | Facts | Heard by |", "|---|---|---|---|"]
    for service in services:
        for topic in service.publishes:
            heard = [
                f"{hearer.name} ({', '.join(facts_heard(line))})"
                for hearer in services
                for line in hearer.hears
                if line.topic == topic.name
            ]
            told = ", ".join(fact.DESCRIPTOR.name for fact in topic.facts)
            topics.append(f"| {topic.name} | {service.name} | {told} | {'; '.join(heard) or '-'} |")
    return "\n".join([*calls, "", *topics])


def placed(readme: str, drawing: str) -> str:
    """The README with the map between its markers. Raises ValueError when a marker is missing."""
    before, found, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the README needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{drawing}\n{END}{after}"


def main() -> None:
    """Writes the map into the README and prints it."""
    drawing = drawn([declared(service) for service in SERVICES])
    README.write_text(placed(README.read_text(), drawing))
    print(drawing)


def _table(service: str, module: str, name: str) -> Sequence[Any]:
    full_name = f"services.{service}.{module}"
    if importlib.util.find_spec(full_name) is None:
        return ()
    table: Sequence[Any] = getattr(importlib.import_module(full_name), name)
    return table


if __name__ == "__main__":
    main()
