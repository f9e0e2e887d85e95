"""A small HTTP port for probes and Prometheus: GET /metrics, /livez, /readyz, /healthz.

`?verbose` lists the checks by name; a check that fails makes 503. It is for the loopback: it asks
nobody who they are, and so it says nothing about objects. It must not know what is counted.
"""

import asyncio
from collections.abc import Callable, Mapping

REQUEST_BYTES = 8 << 10
REQUEST_SECONDS = 5.0
CONNECTIONS = 64

# What is wrong; empty: nothing.
Check = Callable[[], str]

_WORDS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Probe:
    """The answers, and the port."""

    def __init__(self, metrics: Callable[[], bytes], checks: Mapping[str, Check]) -> None:
        """`checks` say whether the server is ready; it is alive if it answers at all."""
        self._metrics = metrics
        self._checks = checks
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, host: str, port: int) -> int:
        """Listens; the port."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def answer(self, method: str, target: str) -> tuple[int, bytes]:
        """Status and text."""
        path, _, query = target.partition("?")
        if path not in ("/metrics", "/livez", "/readyz", "/healthz"):
            return 404, b"not found\n"
        if method != "GET":
            return 405, b"only GET\n"
        if path == "/metrics":
            return 200, self._metrics()
        checks = {} if path == "/livez" else self._checks
        said = {name: check() for name, check in sorted(checks.items())}
        bad = any(said.values())
        if not bad and "verbose" not in query.split("&"):
            return 200, b"ok"
        lines = [
            f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in said.items()
        ]
        lines.append(f"{path.lstrip('/')} check {'failed' if bad else 'passed'}")
        return 503 if bad else 200, ("\n".join(lines) + "\n").encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > CONNECTIONS:
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                status, body = self.answer(method, target)
                writer.write(
                    f"HTTP/1.1 {status} {_WORDS[status]}\r\n"
                    "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (ValueError, OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            # Not HTTP, too long, too slow, or gone: nobody to tell.
            pass
        finally:
            self._connections -= 1
            writer.close()
