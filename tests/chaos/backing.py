"""The stores under test, as the harness sees them: how an apiserver is told of one, and its log.

The log is read from outside of the server that is tested, with nothing of it but the row's layout;
`Tail` copies it while it grows, faster than compaction forgets it, so that the whole log is known
however little of it is kept. A new store is one more entry of `BACKINGS`.
"""

import asyncio
import itertools
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from kcore_api.etcdserverpb import rpc_pb2
from kcore_api.mvccpb import kv_pb2

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Record
from kcore.kernel.store import Store, etcd, sqlite
from tests.chaos.server import Server
from tests.kernel import etcd_server

_TAIL_SECONDS = 0.01


class Backing(Protocol):
    """One sort of store."""

    def arguments(self) -> Sequence[str]:
        """What to tell the apiserver."""
        ...

    def records_after(self, server: Server, revision: int) -> list[Record]:
        """The log after a revision as it is now; the server may live or not."""
        ...

    def store(self, server: Server) -> Store:
        """The store itself, for when the server is not running."""
        ...


class Sqlite:
    """kcore's own: a file below the server's root."""

    def arguments(self) -> Sequence[str]:
        """It is what is there unless told."""
        return ()

    def records_after(self, server: Server, revision: int) -> list[Record]:
        """By a connection that is there for this read only, and writes nothing."""
        path: Path = server.place.database
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            rows = connection.execute(
                f"SELECT {sqlite.COLUMNS} FROM log WHERE position >= ? ORDER BY position",
                ((revision + 1) << 10,),
            ).fetchall()
        finally:
            connection.close()
        return [sqlite.record_of(row) for row in rows]

    def store(self, server: Server) -> Store:
        """Opens the same file."""
        return sqlite.SqliteStore(server.place.database, SystemClock(), Chance())


class Etcd:
    """An etcd of the proof's own, as nobody has configured it but for its room."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kcx-etcd-", dir="/tmp")
        self._etcd = etcd_server.Server(
            Path(self._folder.name), "--quota-backend-bytes=8589934592", "--max-txn-ops=10000",
            "--max-request-bytes=8388608"
        ).start()  # fmt: skip
        weakref.finalize(self, _end, self._etcd, self._folder)
        self._channel = grpc.insecure_channel(self._etcd.url.removeprefix("http://"), _ANY_SIZE)
        self._stream: Iterator[Any] | None = None
        # What the watch has told that nobody has fetched, and etcd's revision up to where.
        self._told: list[Record] = []
        self._place = 0

    def arguments(self) -> Sequence[str]:
        """Where it is."""
        return ("--store", f"etcd:{self._etcd.url}")

    def records_after(self, server: Server, revision: int) -> list[Record]:
        """From a watch that is never behind compaction, up to the head as it is now."""
        head = self._head()
        if head is None:
            return []
        if self._stream is None:
            create = rpc_pb2.WatchCreateRequest(key=b"/kcore/", range_end=b"/kcore0")
            create.start_revision = head.create_revision
            asked = iter([rpc_pb2.WatchRequest(create_request=create)])
            # The requests stay open, or etcd would end the stream.
            self._stream = self._channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                request_serializer=rpc_pb2.WatchRequest.SerializeToString,
                response_deserializer=rpc_pb2.WatchResponse.FromString,
            )(itertools.chain(asked, iter(threading.Event().wait, None)))
        while self._place < head.mod_revision:
            response = next(self._stream)
            if response.canceled:
                raise Gap(f"the watch has ended: {response.compact_revision}")
            for event in response.events:
                self._place = max(self._place, event.kv.mod_revision)
                if event.type == kv_pb2.Event.PUT and event.kv.key != b"/kcore/head":
                    self._told += etcd._records(event.kv)
        found = [record for record in self._told if record.revision > revision]
        self._told = []
        return sorted(found, key=lambda record: record.position)

    def store(self, server: Server) -> Store:
        """Opens the same keys."""
        return self._etcd.store("/kcore")

    def _head(self) -> Any:
        call = self._channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )
        kvs = call(rpc_pb2.RangeRequest(key=b"/kcore/head"), timeout=10).kvs
        return kvs[0] if kvs else None


_ANY_SIZE = (("grpc.max_receive_message_length", -1),)


def _end(server: etcd_server.Server, folder: tempfile.TemporaryDirectory[str]) -> None:
    server.kill()
    folder.cleanup()


BACKINGS: dict[str, Callable[[], Backing]] = {"etcd": Etcd, "sqlite": Sqlite}


class Gap(Exception):
    """The witness was too slow: something was compacted before it was read."""


class Tail:
    """The whole log, copied while it grows. `async with Tail(backing, server) as tail: …`."""

    def __init__(self, backing: Backing, server: Server) -> None:
        """Begins with what is there."""
        self.records: list[Record] = []
        self._backing = backing
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._reading = threading.Lock()

    async def __aenter__(self) -> "Tail":
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def catch_up(self) -> list[Record]:
        """The log up to now."""
        if self._task is not None and self._task.done():
            self._task.result()
        await asyncio.to_thread(self._read)
        return self.records

    async def _follow(self) -> None:
        while True:
            await asyncio.to_thread(self._read)
            await asyncio.sleep(_TAIL_SECONDS)

    def _read(self) -> None:
        with self._reading:
            last = self.records[-1].revision if self.records else 0
            try:
                found = self._backing.records_after(self._server, last)
            except sqlite3.OperationalError:
                # It is being made, or opened after a crash: next time.
                return
            for record in found:
                if record.revision > last + 1:
                    raise Gap(f"revision {record.revision} follows {last}")
                last = record.revision
            self.records += found
