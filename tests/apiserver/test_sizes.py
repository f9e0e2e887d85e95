"""Stock gRPC clients take messages of 4 MiB: they can list, watch and commit everything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import CONFIG_MAP, World, config_map, create, ref, world

LIST = "/kcore.api.v1.ApiService/List"
WATCH = "/kcore.api.v1.ApiService/Watch"
COMMIT = "/kcore.api.v1.ApiService/Commit"
HEAVY = 12


@asynccontextmanager
async def heavy(tmp_path: Path) -> AsyncIterator[tuple[World, grpc.aio.Channel]]:
    """Twelve objects of 1.4 MiB, and a client with gRPC's own limits."""
    async with (
        world(tmp_path) as there,
        grpc.aio.insecure_channel(f"unix:{there.socket}") as stock,
    ):
        for number in range(HEAVY):
            one = config_map(f"c{number:02}", value="v" * 1_400_000)
            await there.session().commit(create(CONFIG_MAP, one))
        yield there, stock


def names(bodies: list[bytes]) -> list[str]:
    return [config_map_pb2.ConfigMap.FromString(one).metadata.name for one in bodies]


async def test_a_stock_client_lists_and_watches_everything(tmp_path: Path) -> None:
    expected = [f"c{number:02}" for number in range(HEAVY)]
    async with heavy(tmp_path) as (there, stock):
        got: list[str] = []
        asked = pb.ListRequest(selection=pb.Selection(kind=CONFIG_MAP))
        pages = 0
        while pages == 0 or asked.page_token:
            answer = await stock.unary_unary(LIST)(asked.SerializeToString())
            page = pb.ListResponse.FromString(answer)
            got += names(list(page.items))
            asked.page_token = getattr(page.metadata, "continue")
            pages += 1
        assert got == expected
        assert pages > HEAVY / 3
        for start in (0, 2):
            watched = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
            watched.selections[0].from_revision = start
            call = stock.unary_stream(WATCH)(watched.SerializeToString())
            told: list[bytes] = []
            while True:
                message = pb.WatchResponse.FromString(await call.read())
                told += [event.object for event in message.events]
                if message.synced:
                    break
            assert names(told) == expected
            call.cancel()
        # Pending for a reader that has not read meanwhile.
        call = stock.unary_stream(WATCH)(
            pb.WatchRequest(
                selections=[pb.Selection(kind=CONFIG_MAP, from_revision=there.kernel.head)]
            ).SerializeToString()
        )
        assert pb.WatchResponse.FromString(await call.read()).synced
        for name in expected:
            operation = pb.Operation(ref=ref(CONFIG_MAP, name))
            operation.delete.SetInParent()
            await there.session().commit(
                pb.CommitRequest(transactions=[pb.Transaction(operations=[operation])])
            )
        told = []
        while len(told) < HEAVY:
            message = pb.WatchResponse.FromString(await call.read())
            told += [event.object for event in message.events]
        assert names(told) == expected
        call.cancel()


def patches(transactions: int, operations: int) -> pb.CommitRequest:
    """Small requests that change large objects."""
    request = pb.CommitRequest(want=pb.WANT_OBJECTS)
    for first in range(transactions):
        transaction = request.transactions.add()
        for second in range(operations):
            operation = transaction.operations.add(ref=ref(CONFIG_MAP, f"c{first + second:02}"))
            changed = config_map(operation.ref.name, more="x")
            operation.patch.merge.object = changed.SerializeToString()
            operation.patch.merge.mask.paths.append("data.more")
    return request


async def test_a_revision_that_no_message_could_carry_is_refused(tmp_path: Path) -> None:
    async with heavy(tmp_path) as (there, stock):
        head = there.kernel.head
        for request in (patches(1, 3), deletions(3)):
            with pytest.raises(ApiError) as raised:
                await there.channel.commit(request)
            assert raised.value.reason is Reason.EXHAUSTED
            assert "make several transactions of it" in raised.value.message
        assert there.kernel.head == head
        watched = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP, from_revision=head)])
        call = stock.unary_stream(WATCH)(watched.SerializeToString())
        await call.read()
        await there.session().commit(deletions(2))
        message = pb.WatchResponse.FromString(await call.read())
        assert len(message.events) == 2
        call.cancel()


async def test_an_answer_leaves_out_what_does_not_fit(tmp_path: Path) -> None:
    async with heavy(tmp_path) as (_, stock):
        answer = await stock.unary_unary(COMMIT)(patches(HEAVY, 1).SerializeToString())
        response = pb.CommitResponse.FromString(answer)
        results = [result.operations[0] for result in response.results]
        assert all(result.changed for result in results)
        given = [result for result in results if result.object]
        assert 0 < len(given) < HEAVY
        for result in results:
            left_out = any("left out" in warning for warning in result.warnings)
            assert left_out == (not result.object)


def deletions(count: int) -> pb.CommitRequest:
    request = pb.CommitRequest(transactions=[pb.Transaction()])
    for number in range(count):
        operation = request.transactions[0].operations.add(ref=ref(CONFIG_MAP, f"c{number:02}"))
        operation.delete.SetInParent()
    return request
