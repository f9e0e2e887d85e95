"""P9: memory is bounded, whoever never reads what he asked for."""

import asyncio
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from tests.chaos import workload
from tests.chaos.backing import Backing
from tests.chaos.history import now
from tests.chaos.proof import Proof
from tests.chaos.server import Server

_OBJECTS = 100
_LIMIT_MIB = 64.0


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    watchers: int,
    updates: int,
    slower: float | None = None,
) -> Proof:
    """`updates` of a hundred objects, a hundred in a request.

    `slower`: how many times longer a commit may take beside them, at the 99th percentile; there
    must be enough of them to say it.
    """
    proof = Proof("P9", "memory is bounded with readers that never read")
    server = Server(root, backing.arguments(), mutant)
    try:
        server.start()
        await server.serving()
        async with workload.dialled(str(server.place.socket), 60.0) as api:
            await workload.make_space(api)
            rounds = updates // _OBJECTS
            idle = await _rounds(api, 0, max(5, rounds // 10))
            before = server.resident_bytes()
            async with workload.dialled(str(server.place.socket)) as stuck:
                method = stuck._method(
                    "unary_stream", "/kcore.api.v1.ApiService/Watch", pb.WatchResponse
                )
                request = pb.WatchRequest(progress_ms=50)
                request.selections.add(kind=workload.KIND)
                calls = [method(request) for _ in range(watchers)]
                for call in calls:
                    await call.initial_metadata()
                busy = await _rounds(api, rounds, 2 * rounds)
                after = server.resident_bytes()
                for call in calls:
                    call.cancel()
        server.stop()
    finally:
        server.close()
    proof.count("watchers", watchers)
    proof.count("updates", updates)
    proof.bound("memory grew by", (after - before) / 2**20, _LIMIT_MIB, "MiB")
    proof.figures["a commit of 100, p99"] = f"{busy * 1000:.0f} ms ({idle * 1000:.0f} ms alone)"
    if slower is not None:
        proof.bound("p99 beside them", busy / idle, slower, "times that alone")
    return proof


async def _rounds(api: workload.channel.Channel, start: int, end: int) -> float:
    """Writes all objects once a round; the 99th percentile of what a round took."""
    took = []
    for number in range(start, end):
        request = pb.CommitRequest(want=pb.WANT_NOTHING)
        for name in range(_OBJECTS):
            made = config_map_pb2.ConfigMap(data={"n": str(number), "pad": "x" * 500})
            made.metadata.name, made.metadata.namespace = f"s{name}", workload.SPACE
            operation = pb.Operation(ref=pb.Ref(kind=workload.KIND))
            operation.apply.object = made.SerializeToString()
            operation.apply.force = True
            request.transactions.add(operations=[operation], manager="setting")
        sent = now()
        response = await api.commit(request)
        took.append(now() - sent)
        failed = [one.error.message for one in response.results if one.HasField("error")]
        assert not failed, failed[0]
        await asyncio.sleep(0)
    took.sort()
    return took[int(len(took) * 0.99)]
