"""Open lists: each stream is shown its products as they are now, then each change, on whichever replica it was made.

One task of the process reads what changed, in one statement for all streams of an audience, so that states never go
backwards and a change costs the same however many watch. Streams share the states; each only notes which products it
has still to show, so that a slow reader gets the latest of each and takes no memory but that.

Past the bound on staleness everything that is watched is read again each second, which asks inventory; when inventory
does not answer, the streams say since when they are not confirmed.

A stream may be resumed: `Position` says up to which transaction everything was shown. A change that is noted from there
on is shown again, and nothing else; a position from longer ago than changes are kept begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.catalog import changes, queries
from services.catalog.changes import TROUBLE, Changes
from services.catalog.freshness import Freshness
from services.chassis.database import Database
from services.chassis.latest import Latest
from shop.contact.v1.contact_options_pb2 import ContactOptions

log = logging.getLogger(__name__)

# So often a stream says something, also when nothing happens: its reader sees that it lives, and its position stays
# young.
QUIET_SECONDS = 60.0
RETRY_SECONDS = 0.5
# How often is looked whether the copy of stock is within the bound, and at the contact options.
LOOK_SECONDS = 1.0

# For whom a list is (languages and currency), and a product as they are shown it.
A = TypeVar("A", bound=Hashable)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Position:
    """All that was committed by transactions before `xid` was shown; when that was, by the database's clock."""

    xid: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Update(Generic[S]):
    """What a stream shows next: products that changed, and from where it may be resumed."""

    products: Mapping[str, S]
    position: Position
    unconfirmed_since: datetime | None


@dataclass(eq=False, slots=True)
class _Stream:
    """What one stream has still to show."""

    to_show: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    # Set once all its products were read after it asked for that.
    begun: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class _Watched(Generic[S]):
    """A product that streams of one audience watch, and how it was when it was read last."""

    streams: set[_Stream] = field(default_factory=set)
    state: S | None = None


class Watches(Generic[A, S]):
    """The streams of this process."""

    def __init__(
        self,
        database: Database,
        feed: Changes,
        freshness: Freshness,
        hotline: Latest[ContactOptions],
        read: Callable[[A, Sequence[str]], Awaitable[tuple[Mapping[str, S], datetime | None]]],
    ) -> None:
        """`read` gets some products as they are now, each of them by its id, and since when that is not confirmed."""
        self._database = database
        self._feed = feed
        self._freshness = freshness
        self._hotline = hotline
        self._read = read
        self._watched: dict[A, dict[str, _Watched[S]]] = {}
        self._streams: set[_Stream] = set()
        self._to_read: set[tuple[A, str]] = set()
        self._to_begin: set[_Stream] = set()
        self._woken = asyncio.Event()
        # Up to where everything that was told was read.
        self._covered: Position | None = None
        self._unconfirmed_since: datetime | None = None
        self._was_stale = False
        self._shown_options = hotline.shown
        feed.listen(self._changed)

    @property
    def open(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    async def follow(
        self, audience: A, product_ids: Collection[str], resumed: Position | None
    ) -> AsyncGenerator[Update[S]]:
        """The products as they are now, or those that changed since a position, then each change.

        Raises `Unavailable` when the database is away at the beginning; later that is waited out.
        """
        stream = _Stream()
        watched = self._watched.setdefault(audience, {})
        for product_id in product_ids:
            watched.setdefault(product_id, _Watched()).streams.add(stream)
        self._streams.add(stream)
        try:
            # Watched before anything is read, so that what changes meanwhile is told.
            began, first = await self._begin(product_ids, resumed)
            self._to_begin.add(stream)
            self._to_read.update((audience, product_id) for product_id in product_ids)
            self._woken.set()
            await stream.begun.wait()
            stream.to_show.update(first)
            while True:
                position = max(began, self._covered or began, key=lambda one: one.xid)
                to_show, stream.to_show = stream.to_show, set()
                stream.woken.clear()
                states = {one: state for one in to_show if (state := watched[one].state) is not None}
                yield Update(states, position, self._unconfirmed_since)
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS):
                        await stream.woken.wait()
        finally:
            self._streams.discard(stream)
            self._to_begin.discard(stream)
            for product_id in product_ids:
                watched[product_id].streams.discard(stream)
                if not watched[product_id].streams:
                    del watched[product_id]
            if not watched:
                del self._watched[audience]

    async def run(self) -> None:
        """Keeps the streams up to what is, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_on())
            group.create_task(self._look())

    async def _read_on(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._read_all()
            except TROUBLE as error:
                log.warning("open lists wait", extra={"error": type(error).__name__})
                await asyncio.sleep(RETRY_SECONDS)
                self._woken.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._streams:
                continue
            try:
                is_stale = await self._freshness.stale_since() is not None
                options = await self._hotline.read()
            except TROUBLE:
                # Nothing can be read, so nothing can be confirmed.
                self._confirm(self._freshness.known_stale_since)
                continue
            if is_stale or self._was_stale:
                self._changed(None)
            self._was_stale = is_stale
            if options is not self._shown_options:
                self._shown_options = options
                self._wake_all()

    async def _begin(self, product_ids: Collection[str], resumed: Position | None) -> tuple[Position, Collection[str]]:
        """Where a stream begins, and what it shows first."""
        xid, now, changed = await queries.changed_of(self._database, product_ids, resumed.xid if resumed else None)
        is_known = (
            resumed is not None
            and resumed.xid <= xid  # a database that was restored counts its transactions again
            and timedelta() <= now - resumed.time < timedelta(seconds=changes.COUNTED_SECONDS)
        )
        return Position(xid, now), changed if is_known else product_ids

    async def _read_all(self) -> None:
        """Reads what is to be read, and tells the streams what is other than before."""
        reached = self._feed.position
        to_read, self._to_read = self._to_read, set()
        to_begin, self._to_begin = self._to_begin, set()
        try:
            for audience in {audience for audience, _ in to_read}:
                watched = self._watched.get(audience, {})
                product_ids = [each for of, each in to_read if of == audience and each in watched]
                if product_ids:
                    states, unconfirmed_since = await self._read(audience, product_ids)
                    self._see(watched, states)
                    self._confirm(unconfirmed_since)
        except BaseException:
            self._to_read |= to_read
            self._to_begin |= to_begin & self._streams
            raise
        if reached is not None:
            self._covered = Position(*reached)
        for stream in to_begin:
            stream.begun.set()

    def _see(self, watched: Mapping[str, _Watched[S]], states: Mapping[str, S]) -> None:
        for product_id, state in states.items():
            product = watched.get(product_id)
            if product is not None and product.state != state:
                product.state = state
                for stream in product.streams:
                    if stream.begun.is_set():
                        stream.to_show.add(product_id)
                        stream.woken.set()

    def _confirm(self, unconfirmed_since: datetime | None) -> None:
        if unconfirmed_since != self._unconfirmed_since:
            self._unconfirmed_since = unconfirmed_since
            self._wake_all()

    def _wake_all(self) -> None:
        for stream in self._streams:
            stream.woken.set()

    def _changed(self, product_ids: Collection[str] | None) -> None:
        for audience, watched in self._watched.items():
            changed = watched if product_ids is None else [each for each in product_ids if each in watched]
            for product_id in changed:
                self._to_read.add((audience, product_id))
                # Nobody can say yet how it was when such a stream was left.
                for stream in watched[product_id].streams:
                    if not stream.begun.is_set():
                        stream.to_show.add(product_id)
        if self._to_read:
            self._woken.set()
