"""P23: retries are safe. Each reply is lost once after the request was applied; it is asked again.

What may not be done twice is created with generated names, draws from a pool, and holds finalizers.
"""

import random
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, node_pb2

from kcore.client import channel
from kcore.wire.errors import ApiError, Reason
from tests.chaos import witness, workload
from tests.chaos.backing import Backing, Tail
from tests.chaos.history import History, Outcome, Write, now
from tests.chaos.proof import Proof
from tests.chaos.server import Server

NODE = node_pb2.Node.DESCRIPTOR.full_name
_FINALIZER = "chaos.example/hold"
# The pool of 10.244.0.0/16 in /24 has so many.
_MOST_NODES = 200


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    operations: int,
    kills: int,
) -> Proof:
    """Now and then the server dies between a lost reply and its repetition."""
    proof = Proof("P23", "retries are safe")
    server = Server(root, backing.arguments(), mutant)
    try:
        server.start()
        await server.serving()
        async with (
            workload.dialled(str(server.place.socket)) as api,
            Tail(backing, server) as tail,
        ):
            await workload.make_space(api)
            client = _Forgetful(api, server, seed)
            made, nodes = await client.run(operations, kills)
            maps = await _all(api, workload.KIND, config_map_pb2.ConfigMap)
            found = await _all(api, NODE, node_pb2.Node)
            log = await tail.catch_up()
        server.stop()
    finally:
        server.close()
    proof.count("operations", len(client.history.writes), operations)
    proof.count("replies lost", client.lost, operations)
    proof.count("generated names", made, operations // 20)
    proof.count("pool draws", nodes, operations // 50)
    ours = [one for one in maps if one.metadata.generate_name == "made-"]
    if len(ours) != made:
        proof.broken.append(f"{made} objects were created, {len(ours)} are there")
    blocks = [one.spec.pod_cidr for one in found]
    if len(found) != nodes or len(set(blocks)) != len(blocks) or "" in blocks:
        proof.broken.append(f"{nodes} nodes were made; {len(found)} are there with {blocks}")
    proof.complain(client.complaints)
    proof.complain(list(witness.in_itself(log)))
    proof.complain(list(witness.in_real_time(client.history)))
    proof.complain(list(witness.of_writes(log, client.history.writes, workload.MANAGER)))
    return proof


class _Forgetful:
    """A client that never hears the first answer, and meets others before it asks again."""

    def __init__(self, api: channel.Channel, server: Server, seed: int) -> None:
        self.history = History()
        self.complaints: list[str] = []
        self.lost = 0
        self._api = api
        self._server = server
        self._draw = random.Random(f"{seed}/retries")
        self._live: dict[str, int] = {}
        self._number = 0

    async def run(self, operations: int, kills: int) -> tuple[int, int]:
        """How many objects with generated names are left, and how many nodes were made."""
        made = nodes = 0
        for number in range(operations):
            dies = kills and number % (operations // kills) == operations // kills // 2
            what = 0.3 if number % 20 == 7 else self._draw.random()
            if what < 0.25 or not self._live:
                body = config_map_pb2.ConfigMap(data={"n": str(number)})
                body.metadata.generate_name, body.metadata.namespace = "made-", workload.SPACE
                body.metadata.finalizers.append(_FINALIZER)
                name = await self._twice(_create(workload.KIND, body), dies)
                self._live[name] = number
                made += 1
            elif what < 0.32 and nodes < _MOST_NODES:
                node = node_pb2.Node()
                node.metadata.generate_name = "n-"
                await self._twice(_create(NODE, node), dies)
                nodes += 1
            elif what < 0.85:
                name = self._draw.choice(sorted(self._live))
                await self._twice(_put(name, number), dies, other=_put(name, -number))
            else:
                # It takes two writes to end what is held; each is asked for twice.
                name = self._draw.choice(sorted(self._live))
                del self._live[name]
                await self._twice(_delete(name), dies)
                await self._twice(_let_go(name), False)
                made -= 1
        return made, nodes

    async def _twice(
        self, operation: pb.Operation, dies: bool, other: pb.Operation | None = None
    ) -> str:
        """The object's name; both answers must be the same."""
        write, first = await self._once(operation)
        self.lost += 1
        if other is not None and self._draw.random() < 0.5:
            between, _ = await self._once(other)
            self.history.writes.append(between)
        if dies:
            self._server.kill()
            self._server.start()
            await self._server.serving()
        again, second = await self._once(operation, write.request_id)
        if (first.revision, first.operations[0].object) != (
            second.revision,
            second.operations[0].object,
        ):
            said = f"{write.request_id}: {first.revision} first, then {second.revision}"
            self.complaints.append(f"{said}: {again.said}")
        self.history.writes.append(write)
        message = config_map_pb2.ConfigMap.FromString(second.operations[0].object)
        write.keys = {
            workload.Key(
                operation.ref.kind, message.metadata.namespace, message.metadata.name
            ): None
        }
        return message.metadata.name

    async def _once(
        self, operation: pb.Operation, request_id: str = ""
    ) -> tuple[Write, pb.TransactionResult]:
        self._number += 1
        request_id = request_id or f"r{self._number}"
        transaction = pb.Transaction(
            request_id=request_id, manager=workload.MANAGER, operations=[operation]
        )
        key = workload.Key(operation.ref.kind, operation.ref.namespace, operation.ref.name)
        write = Write(request_id, {key: None}, now())
        request = pb.CommitRequest(transactions=[transaction], want=pb.WANT_OBJECTS)
        while True:
            try:
                result = (await self._api.commit(request)).results[0]
                break
            except ApiError as error:
                # After a death the connection must be made again.
                if error.reason is not Reason.UNAVAILABLE:
                    self.complaints.append(f"{request_id}: {error!r}")
                    return write, pb.TransactionResult(operations=[pb.OperationResult()])
        write.returned, write.outcome, write.revision = now(), Outcome.OK, result.revision
        return write, result


def _create(kind: str, body: Message) -> pb.Operation:
    return pb.Operation(ref=pb.Ref(kind=kind), create=body.SerializeToString())


def _put(name: str, number: int) -> pb.Operation:
    made = config_map_pb2.ConfigMap(data={"n": str(number)})
    operation = pb.Operation(ref=_ref(name))
    operation.patch.merge.object = made.SerializeToString()
    operation.patch.merge.mask.paths.append("data")
    return operation


def _delete(name: str) -> pb.Operation:
    operation = pb.Operation(ref=_ref(name))
    operation.delete.SetInParent()
    return operation


def _let_go(name: str) -> pb.Operation:
    operation = pb.Operation(ref=_ref(name))
    operation.patch.merge.mask.paths.append("metadata.finalizers")
    return operation


def _ref(name: str) -> pb.Ref:
    return pb.Ref(kind=workload.KIND, namespace=workload.SPACE, name=name)


async def _all(api: channel.Channel, kind: str, message: type[Any]) -> list[Any]:
    answer = await api.list(pb.ListRequest(selection=pb.Selection(kind=kind)))
    return [message.FromString(one) for one in answer.items]
