"""The controllers over gRPC, on the real clock: the same, with another Api."""

import asyncio
import contextlib
import pathlib

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.controllers import run as controllers
from kcore.reconcile import transaction
from tests.apiserver import world
from tests.controllers import plant
from tests.controllers.plant import Pod


async def test_a_deployment_becomes_pods_over_grpc(tmp_path: pathlib.Path) -> None:
    async with (
        world.world(tmp_path) as there,
        channel.connect(Target(unix=str(there.socket))) as api,
    ):
        work = asyncio.create_task(controllers.run(api, SystemClock(), Chance(1), "CA"))
        wanted = transaction.create(plant.deploy(replicas=40))
        await there.channel.commit(pb.CommitRequest(transactions=[wanted]))
        pods: list[Pod] = []
        async with asyncio.timeout(20):
            while len(pods) < 40:
                await asyncio.sleep(0.02)
                selection = pb.Selection(kind=Pod.DESCRIPTOR.full_name, namespace="default")
                answer = await there.channel.list(pb.ListRequest(selection=selection))
                pods = [Pod.FromString(item) for item in answer.items]
        assert not work.done()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    assert len(pods) == 40
    assert all(each.spec.service_account_name == "default" for each in pods)
