"""The network room: keeps this node's pod network, and its routes to all others, as Nodes say.

A node's pod CIDR is drawn from the Pool `pod-cidrs` when its Node is created (a claim); as soon as
it is there, the bridge's configuration is written and the runtime becomes NetworkReady. Routes
follow the Nodes, and are looked at again whenever the kernel's have changed, whoever did that.
Until all nodes have been seen nothing is taken away; when the API is gone, all stays as it is.
It must not know pods, nor services.
"""

import asyncio
import logging
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pool_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.network import cni, netlink, routes
from kcore.reconcile import stream
from kcore.reconcile.view import View
from kcore.tasks import Tasks
from kcore.wire import api as wire
from kcore.wire.errors import ApiError

Node = node_pb2.Node
Pool = pool_pb2.Pool

POOL = "pod-cidrs"
# Of services' addresses: the node's own programs must find a way there.
SERVICES = "service-ips"
AGAIN_SECONDS = 1.0
# Changes come several at once.
SETTLE_SECONDS = 0.1
# How often the rules are looked at: nobody tells when they go.
LOOK_SECONDS = 4.0
log = logging.getLogger(__name__)


async def run(
    api: wire.Api, node: str, conf_dir: Path, state_dir: Path, clock: Clock, chance: Chance
) -> None:
    """Until cancelled. The network stays as it is when this ends."""
    watch = netlink.Watch()
    try:
        network = _Network(api, node, conf_dir, state_dir, clock, watch)
        flow = stream.Stream(api, network.view.kinds, clock, chance.fork("stream"))
        async with Tasks() as tasks:
            tasks.start(flow.run(), "network stream")
            tasks.start(network.follow(flow), "network nodes")
            tasks.start(network.keep(), "network routes")
            tasks.start(network.look(), "network rules")
    finally:
        watch.close()


class _Network:
    """What the room knows: all nodes, and what was made of them."""

    def __init__(
        self,
        api: wire.Api,
        node: str,
        conf_dir: Path,
        state_dir: Path,
        clock: Clock,
        watch: netlink.Watch,
    ) -> None:
        self.view = View((Node,))
        self._api = api
        self._node = node
        self._conf_dir = conf_dir
        self._state_dir = state_dir
        self._clock = clock
        self._watch = watch
        self._changed = asyncio.Event()
        self._pods: cni.PodNetwork | None = None
        self._services = self._cluster = ""
        self._told: tuple[str, ...] = ()

    async def follow(self, flow: stream.Stream) -> None:
        """Takes on what the watch brings."""
        while True:
            before = self._peers()
            for batch in (await flow.next(), *flow.come()):
                self.view.apply(batch)
            if self.view.synced and (self._pods is None or self._peers() != before):
                self._changed.set()

    async def keep(self) -> None:
        """Makes it so, again and again."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._watch.fileno(), self._touched)
        try:
            while True:
                await self._changed.wait()
                await self._clock.sleep(SETTLE_SECONDS)
                self._changed.clear()
                if not self.view.synced:
                    continue
                try:
                    await self._converge()
                except (ApiError, cni.NetworkError, netlink.RouteError) as error:
                    log.warning("network: %s; again in %s s", error, AGAIN_SECONDS)
                    await self._clock.sleep(AGAIN_SECONDS)
                    self._changed.set()
        finally:
            loop.remove_reader(self._watch.fileno())

    async def look(self) -> None:
        """Sees that the way out is still there."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            if self._pods is not None and not await cni.is_whole(self._pods):
                log.warning("rules of the pod network are gone; making them anew")
                self._pods = None
                self._changed.set()

    def _touched(self) -> None:
        self._watch.drain()
        self._changed.set()

    def _peers(self) -> list[routes.Peer]:
        return [one for one in map(routes.peer, self.view.list(Node)) if one is not None]

    async def _converge(self) -> None:
        own = self.view.get(Node, "", self._node)
        if own is None or not own.spec.pod_cidr:
            return
        if not self._services:
            self._services = await self._pool(SERVICES)
        links = await asyncio.to_thread(netlink.links)
        wanted = routes.plan(self._peers(), self._node, links, self._services)
        self._tell(wanted.wrong)
        if not wanted.mtu:
            # Where this node is is not known, so nothing can be said of any other.
            return
        if not self._cluster:
            self._cluster = await self._pool(POOL)
        pods = cni.PodNetwork(own.spec.pod_cidr, self._cluster, self._state_dir, mtu=wanted.mtu)
        if pods != self._pods:
            await cni.up(pods, self._conf_dir)
            self._pods = pods
        await self._route(wanted)

    async def _route(self, wanted: routes.Plan) -> None:
        steps = routes.difference(await asyncio.to_thread(netlink.found), wanted)
        if steps:
            await asyncio.to_thread(netlink.carry_out, steps)
            log.info(
                "routes: %d made, %d taken away, of %d",
                len(steps.make_routes),
                len(steps.remove_routes),
                len(wanted.routes),
            )

    async def _pool(self, name: str) -> str:
        ref = pb.Ref(kind=Pool.DESCRIPTOR.full_name, name=name)
        answer = await self._api.get(pb.GetRequest(ref=ref))
        return str(Pool.FromString(answer.object).spec.cidr)

    def _tell(self, wrong: tuple[str, ...]) -> None:
        for line in wrong:
            if line not in self._told:
                log.warning("routes: %s", line)
        self._told = wrong
