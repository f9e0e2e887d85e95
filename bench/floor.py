"""The floors: what the things under kcore do with nothing on top.

An empty grpc.aio echo server in a process of its own, and SQLite's group commit.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

ECHO = "/bench.Echo/Unary"
STREAM = "/bench.Echo/Stream"
MESSAGE_BYTES = 4 * 1024 * 1024


class _Echo(grpc.GenericRpcHandler):
    """Unary: sends back what came. Stream: sends `count size` messages of zeros."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == ECHO:
            return grpc.unary_unary_rpc_method_handler(_unary)
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(_stream)
        return None


async def _unary(request: bytes, context: object) -> bytes:
    return request


async def _stream(request: bytes, context: object):  # type: ignore[no-untyped-def]
    count, size = map(int, request.split())
    message = bytes(size)
    for _ in range(count):
        yield message


async def serve(socket: str) -> None:
    """The echo server; `python -m bench.floor SOCKET`."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def rate(
    call: Callable[[int, int], Awaitable[object]], clients: int, seconds: float
) -> float:
    """Calls per second of so many clients, each with one call in flight."""
    done = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < end:
            await call(number, turn)
            turn += 1
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - start)


def sqlite_rate(directory: Path, batch: int, value: bytes, seconds: float) -> float:
    """Puts per second of SQLite with WAL and synchronous=FULL, so many a transaction."""
    path = directory / f"floor-{batch}.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("create table log(revision integer primary key, body blob)")
    done = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        connection.execute("begin")
        connection.executemany("insert into log(body) values (?)", [(value,)] * batch)
        connection.execute("commit")
        done += batch
    spent = time.perf_counter() - start
    connection.close()
    return done / spent


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(sys.argv[1]))
