"""A kernel in this process, and the command line on it: `async with cluster() as run`.

    code, out, err = await run("get pods -o wide")

The kernel is the real one, on memory, behind an administrator's session; time stands still unless a
test moves it.
"""

import asyncio
import io
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.admission import BY_KIND, ON_DELETE
from kcore.apiserver.identity import ADMIN
from kcore.apiserver.session import Session
from kcore.chance import Chance
from kcore.cli import root
from kcore.cli import session as cli_session
from kcore.client import codec, kinds
from kcore.client.streams import PodStreams
from kcore.kernel import kernel, schema
from kcore.kernel.kernel import Kernel
from kcore.kernel.store.memory import MemoryStore

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"
EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class StillClock:
    """Time that moves when it is told to; sleeping takes a moment of the real one."""

    def __init__(self) -> None:
        self.seconds = EPOCH

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)


@dataclass
class Run:
    """Runs commands; keeps what they share."""

    api: Session
    clock: StillClock
    directory: Path
    streams: PodStreams | None = None
    environ: dict[str, str] = field(default_factory=dict)
    chance: Chance = field(default_factory=lambda: Chance(1))

    async def __call__(
        self, line: str, *more: str, stdin: bytes = b"", **settings: Any
    ) -> tuple[int, str, str]:
        """One command: its exit code, what it wrote to stdout and to stderr."""
        session = self.session(stdin, **settings)
        code = await root.call([*shlex.split(line), *more], session)
        return code, session.stdout.getvalue(), session.stderr.getvalue()  # type: ignore[attr-defined]

    def session(self, stdin: bytes = b"", **settings: Any) -> cli_session.Session:
        """A session on the kernel whose output can be looked at."""
        return cli_session.Session(
            stdout=io.StringIO(),
            stderr=io.StringIO(),
            stdin=io.BytesIO(stdin),
            environ=self.environ,
            clock=self.clock,
            chance=self.chance,
            given_api=self.api,
            given_streams=self.streams,
            **settings,
        )

    async def apply(self, manifest: str) -> None:
        """Applies, and fails the test if that fails."""
        code, _, err = await self("apply -f -", stdin=manifest.encode())
        assert code == 0, err

    async def status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """Sets an object's status, as its controller or kubelet would."""
        known = next(k for k in kinds.built_in().kinds if k.name == kind)
        ref = pb.Ref(kind=known.full_name, namespace="default" if known.namespaced else "")
        ref.name = name
        found = await self.api.get(pb.GetRequest(ref=ref))
        message: Any = known.parse(found.object)
        wanted: Any = codec.from_plain(known.descriptor, {"status": status})
        message.status.CopyFrom(wanted.status)
        operation = pb.Operation(ref=ref, subresource="status", update=message.SerializeToString())
        await self.commit(operation)

    async def commit(self, *operations: pb.Operation) -> pb.CommitResponse:
        """One transaction, by somebody else."""
        transaction = pb.Transaction(request_id=self.chance.uid(), operations=operations)
        return await self.api.commit(
            pb.CommitRequest(transactions=[transaction], want=pb.WANT_OBJECTS)
        )


@asynccontextmanager
async def opened(clock: StillClock) -> AsyncIterator[Kernel]:
    """A kernel on memory."""
    chance = Chance(1)
    async with kernel.opened(
        MemoryStore(chance),
        _schema(),
        BY_KIND,
        clock,
        chance.fork("kernel"),
        codec=codec,
        leaving=ON_DELETE,
    ) as made:
        yield made


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Run]:
    """A kernel with the namespaces that every cluster has."""
    clock = StillClock()
    async with opened(clock) as made:
        run = Run(Session(made, ADMIN), clock, directory)
        for name in ("default", "kube-system"):
            await run.apply(NAMESPACE % name)
        yield run


_SCHEMAS: list[schema.Schema] = []


def _schema() -> schema.Schema:
    if not _SCHEMAS:
        _SCHEMAS.append(schema.compile_schema(kinds.built_in_bytes()))
    return _SCHEMAS[0]
