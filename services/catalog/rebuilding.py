"""The copy of stock rebuilt from its topic, from the beginning, while catalog goes on answering and hearing.

    python -m services.catalog rebuild

For a copy that cannot be trusted any more, versions and all (a database restored from a backup, rows edited by hand).

1. A mark in the database says that the copy is being rebuilt: on every replica it counts as past the bound, so each
   answer is confirmed by inventory or says that it is not.
2. The versions are forgotten, the numbers stay: whatever the topic says now wins, and nothing vanishes meanwhile.
3. The topic, which is compacted, is read to its end; of each key the last fact is heard as ever. Facts that arrive
   meanwhile are heard by the running processes, and win as they are newer.
4. A comparison with inventory heals what is left, and takes out what the topic does not know.
5. The mark goes.

Stopped in the middle, the mark stays: run it again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.catalog.consumers import HEARS, STOCK
from services.catalog.reconciliation import Reconciliation
from services.catalog.store import rebuilding
from services.chassis import kafka
from services.chassis.brokers import Brokers, client
from services.chassis.database import Database
from services.chassis.decoding import Letter
from services.chassis.errors import Unavailable
from services.chassis.handling import Handling

log = logging.getLogger(__name__)

# Facts in one transaction: those who hear and those who answer come in between.
TOGETHER = 500


class Rebuilding:
    """One rebuild of the copy."""

    def __init__(self, database: Database, brokers: Brokers | str, app: object, reconciliation: Reconciliation) -> None:
        self._database = database
        self._brokers = brokers
        (hears,) = (heard for heard in HEARS if heard.topic == STOCK)
        self._handling = Handling(database.service, database, hears, app)
        self._reconciliation = reconciliation

    async def run(self) -> int:
        """Returns how many keys the topic had.

        Raises `Unavailable` when the database, Kafka or inventory is away. Then the mark stays.
        """
        partitions = await kafka.partition_count(self._brokers, STOCK)
        if partitions is None:
            raise Unavailable("Kafka does not say what the topic has", reason="KAFKA_AWAY")
        await self.begin()
        keys = 0
        consumer = AIOKafkaConsumer(**client(self._brokers), enable_auto_commit=False, **kafka.CONSUMER)
        await consumer.start()
        try:
            for partition in range(partitions):
                letters = await self._read(consumer, TopicPartition(STOCK, partition))
                keys += len(letters)
                for start in range(0, len(letters), TOGETHER):
                    await self._handling.together(letters[start : start + TOGETHER])
        finally:
            await consumer.stop()
        healed = await self._reconciliation.compare(settle=True)
        async with self._database.transaction() as tx:
            await rebuilding.end(tx.connection)
        log.info("rebuilt from the topic", extra={"keys": keys, "healed": dict(healed)})
        return keys

    async def begin(self) -> None:
        """Marks the copy, then forgets the versions."""
        async with self._database.transaction() as tx:
            await rebuilding.begin(tx.connection)
        # Replicas look at the mark a moment later; until then they show the numbers as they were.
        while await rebuilding.forget_versions(self._database):
            pass

    async def _read(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> Sequence[Letter]:
        """The last message of each key, up to where the partition ends now."""
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        newest: dict[bytes | None, Letter] = {}
        while await consumer.position(place) < end:
            polled: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(timeout_ms=1000)
            for record in polled.get(place, ()):
                letter = self._handling.decode(record)
                if letter.message is None:
                    newest.pop(record.key, None)
                else:
                    newest[record.key] = letter
        return list(newest.values())
