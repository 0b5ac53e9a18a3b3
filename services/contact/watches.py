"""Watching: streams that show what changes, on whichever replica the change was made.

A change is told after its commit: in this process at once, to the others by NOTIFY, outside of the writing
transaction (inside, it would make all commits queue) and in one go for all changes since the last. Each process then
reads what its own streams watch in one statement. A word that was lost is made up for by a look at everything that is
watched, at most every second, and only while somebody watches.

Each process also notes, every few seconds and in one statement, which contacts its streams watch: a customer whom no
process sees for long has vanished.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar
from uuid import uuid4

import asyncpg

from services.chassis.database import OUTAGES, Database
from services.chassis.errors import Refusal
from services.contact import presence, queries, store
from services.contact.domain.contact import Contact

log = logging.getLogger(__name__)

CHANNEL = "contact"
# A NOTIFY carries less than 8000 bytes; ids are at most 64 long.
IDS_AT_ONCE = 100
PING_SECONDS = 2.0
AWAY: tuple[type[BaseException], ...] = (*OUTAGES, asyncpg.InterfaceError)
TROUBLE: tuple[type[BaseException], ...] = (*AWAY, Refusal)

S = TypeVar("S")


class Watch(Generic[S]):
    """The state of watched keys, read once for all streams of this process."""

    def __init__(
        self,
        read: Callable[[Sequence[str]], Awaitable[Mapping[str, S]]],
        nothing: S,
        ask: Callable[[str], None],
    ) -> None:
        """`read` gets the states of keys; one it leaves out has the state `nothing`. `ask` has a key read soon."""
        self._read = read
        self._nothing = nothing
        self._ask = ask
        self._followers: dict[str, set[_Follower[S]]] = {}

    @property
    def keys(self) -> Collection[str]:
        """What is watched."""
        return self._followers.keys()

    async def follow(self, key: str) -> AsyncGenerator[S]:
        """The state now, then each time it changed; what changes while the reader is slow is skipped."""
        follower: _Follower[S] = _Follower(self._nothing)
        self._followers.setdefault(key, set()).add(follower)
        try:
            self._ask(key)
            while True:
                await follower.changed.wait()
                follower.changed.clear()
                yield follower.state
        finally:
            self._followers[key].discard(follower)
            if not self._followers[key]:
                del self._followers[key]

    async def refresh(self, keys: Collection[str]) -> None:
        """Reads these keys, as far as they are watched, and tells their streams what changed. Once at a time."""
        watched = [key for key in keys if key in self._followers]
        if not watched:
            return
        states = await self._read(watched)
        for key in watched:
            for follower in self._followers.get(key, ()):
                follower.see(states.get(key, self._nothing))


class _Follower(Generic[S]):
    """One stream of one key."""

    def __init__(self, nothing: S) -> None:
        self.changed = asyncio.Event()
        self.state = nothing
        self._is_first = True

    def see(self, state: S) -> None:
        if self._is_first or self.state != state:
            self._is_first = False
            self.state = state
            self.changed.set()


class Watches:
    """What the streams of this process watch: contacts, and what is open at desks."""

    def __init__(self, database: Database, poll_seconds: float, note_seconds: float) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._note_seconds = note_seconds
        self._to_note: set[str] = set()
        self._name = uuid4().hex
        self._woken = asyncio.Event()
        self._to_refresh: set[tuple[str, str]] = set()
        self._to_send: set[tuple[str, str]] = set()
        self._something_to_send = asyncio.Event()
        self.contacts: Watch[Contact | None] = Watch(
            lambda ids: queries.contacts(database, ids), None, self._start_contact
        )
        self.desks: Watch[list[store.Offer]] = Watch(
            lambda ids: queries.open_offers(database, ids), [], lambda key: self._look({("a", key)})
        )

    def tell(self, contacts: Collection[str] = (), agents: Collection[str] = ()) -> None:
        """Says, after the commit, which contacts changed and at whose desks something did."""
        told = {("c", contact_id) for contact_id in contacts} | {("a", agent_id) for agent_id in agents}
        if told:
            self._look(told)
            self._to_send |= told
            self._something_to_send.set()

    async def run(self) -> None:
        """Keeps the streams of this process fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._refresh())
            group.create_task(self._send())
            group.create_task(self._listen())
            group.create_task(self._note())

    async def note(self) -> None:
        """Notes which contacts are watched here, or were since the last time: a stream may come and go in between."""
        watched = {*self.contacts.keys, *self._to_note}
        if watched:
            await presence.note_watched(self._database, watched)
            self._to_note -= watched

    async def _refresh(self) -> None:
        poll_due = monotonic() + self._poll_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_due - monotonic()):
                    await self._woken.wait()
            self._woken.clear()
            wanted, self._to_refresh = self._to_refresh, set()
            if monotonic() >= poll_due:
                poll_due = monotonic() + self._poll_seconds
                wanted = self._everything()
            try:
                await self.contacts.refresh([key for kind, key in wanted if kind == "c"])
                await self.desks.refresh([key for kind, key in wanted if kind == "a"])
            except TROUBLE as error:
                log.warning("watches cannot look", extra={"error": type(error).__name__})
                await asyncio.sleep(self._poll_seconds)

    async def _send(self) -> None:
        while True:
            await self._something_to_send.wait()
            self._something_to_send.clear()
            told, self._to_send = sorted(self._to_send), set()
            for start in range(0, len(told), IDS_AT_ONCE):
                payload = json.dumps([self._name, told[start : start + IDS_AT_ONCE]], separators=(",", ":"))
                try:
                    await self._database.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
                except AWAY:
                    break  # the others poll, too

    async def _listen(self) -> None:
        while True:
            try:
                async with self._database.connect() as connection:
                    await connection.add_listener(CHANNEL, self._hear)
                    self._look(self._everything())  # what was told while nobody listened
                    while True:
                        await asyncio.sleep(PING_SECONDS)
                        await connection.execute("SELECT 1")
            except AWAY as error:
                log.warning("listening starts over", extra={"error": type(error).__name__})
            await asyncio.sleep(self._poll_seconds)

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(self._note_seconds)
            try:
                await self.note()
            except TROUBLE as error:
                log.warning("watches are noted later", extra={"error": type(error).__name__})

    def _start_contact(self, contact_id: str) -> None:
        self._to_note.add(contact_id)
        self._look({("c", contact_id)})

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: Any) -> None:
        sender, told = json.loads(payload)
        if sender != self._name:
            self._look({(kind, key) for kind, key in told})

    def _look(self, told: Collection[tuple[str, str]]) -> None:
        watched = {(kind, key) for kind, key in told if key in (self.contacts if kind == "c" else self.desks).keys}
        if watched:
            self._to_refresh |= watched
            self._woken.set()

    def _everything(self) -> set[tuple[str, str]]:
        return {("c", key) for key in self.contacts.keys} | {("a", key) for key in self.desks.keys}
