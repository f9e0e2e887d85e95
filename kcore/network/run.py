"""The network room: keeps this node's pod network as its Node object says.

One watch on one object. The pod CIDR is drawn from the Pool `pod-cidrs` when the Node is created
(a claim); as soon as it is there, the bridge's configuration is written and the runtime becomes
NetworkReady. It must not know pods.
"""

import logging
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pool_pb2

from kcore.clock import Clock
from kcore.network import cni
from kcore.wire import api as wire
from kcore.wire.errors import ApiError

POOL = "pod-cidrs"
AGAIN_SECONDS = 1.0
log = logging.getLogger(__name__)


async def run(api: wire.Api, node: str, conf_dir: Path, state_dir: Path, clock: Clock) -> None:
    """Until cancelled. A lost watch is taken up again; the network stays as it is meanwhile."""
    selection = pb.Selection(kind=node_pb2.Node.DESCRIPTOR.full_name, names=[node])
    while True:
        try:
            async for response in api.watch(pb.WatchRequest(selections=[selection])):
                for event in response.events:
                    if event.type != pb.Event.DELETED:
                        await _converge(api, event.object, conf_dir, state_dir)
        except (ApiError, cni.NetworkError) as error:
            log.warning("pod network of %s: %s; again in %s s", node, error, AGAIN_SECONDS)
        await clock.sleep(AGAIN_SECONDS)


async def _converge(api: wire.Api, body: bytes, conf_dir: Path, state_dir: Path) -> None:
    pod_cidr = node_pb2.Node.FromString(body).spec.pod_cidr
    if not pod_cidr:
        return
    ref = pb.Ref(kind=pool_pb2.Pool.DESCRIPTOR.full_name, name=POOL)
    answer = await api.get(pb.GetRequest(ref=ref))
    cluster_cidr = pool_pb2.Pool.FromString(answer.object).spec.cidr
    await cni.up(cni.PodNetwork(pod_cidr, cluster_cidr, state_dir), conf_dir)
