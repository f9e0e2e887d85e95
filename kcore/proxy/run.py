"""The proxy room: keeps this node's table `kcore` as services and their slices say.

Changes come in batches from one watch, and one batch is one transaction of the kernel. At its start
the room reads what the kernel has and changes only what differs, so that a restart moves nothing;
until it has seen all services it changes nothing at all. When others have changed its table, it
looks whether that is still right. What the kernel refuses is mended the same way.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.proxy import conntrack, frontend, nft, ruleset
from kcore.proxy.rules import Name, Rules
from kcore.reconcile import stream
from kcore.reconcile.view import Change, View
from kcore.tasks import Tasks
from kcore.wire import api as wire
from kcore.wire.errors import ApiError

Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice

# The pool of services' addresses: what is sent there and is nobody's is refused.
POOL = "service-ips"
AGAIN_SECONDS = 1.0
# Others make several changes at once.
SETTLE_SECONDS = 0.2
log = logging.getLogger(__name__)


async def run(api: wire.Api, node: str, clock: Clock, chance: Chance) -> None:
    """Until cancelled. The rules stay as they are when it ends."""
    with nft.Nft() as library:
        watch = nft.Watch(ruleset.TABLE)
        try:
            proxy = _Proxy(node, await _services(api, clock), library, watch, clock)
            flow = stream.Stream(api, proxy.view.kinds, clock, chance.fork("stream"))
            async with Tasks() as tasks:
                tasks.start(flow.run(), "proxy stream")
                tasks.start(proxy.follow(flow), "proxy services")
                tasks.start(proxy.guard(), "proxy guard")
        finally:
            watch.close()


async def _services(api: wire.Api, clock: Clock) -> str:
    """The network of services' addresses."""
    ref = pb.Ref(kind=pool_pb2.Pool.DESCRIPTOR.full_name, name=POOL)
    while True:
        try:
            answer = await api.get(pb.GetRequest(ref=ref))
            return str(pool_pb2.Pool.FromString(answer.object).spec.cidr)
        except ApiError as error:
            log.warning("pool %s: %s; again in %s s", POOL, error, AGAIN_SECONDS)
        await clock.sleep(AGAIN_SECONDS)


class _Proxy:
    """What the room knows: all services, and the table as the kernel should have it."""

    def __init__(
        self, node: str, services: str, library: nft.Nft, watch: nft.Watch, clock: Clock
    ) -> None:
        self.view = View((Service, EndpointSlice), {EndpointSlice: {"service": _service}})
        self._node = node
        self._rules = Rules(services)
        self._library = library
        self._watch = watch
        self._clock = clock
        # One transaction at a time; how many of ours the watch has not told of yet.
        self._kernel = asyncio.Lock()
        self._own = 0
        self._is_read = False
        self._clashes: set[frontend.Frontend] = set()

    async def follow(self, flow: stream.Stream) -> None:
        """Takes on what the watch brings."""
        while True:
            names: dict[Name, None] = {}
            for batch in (await flow.next(), *flow.come()):
                names |= dict.fromkeys(_concerned(self.view.apply(batch)))
            if not self.view.synced:
                continue
            async with self._kernel:
                changed = {name: self._served(name) for name in names}
                if self._is_read:
                    await self._carry_out(self._rules.update(changed))
                else:
                    self._rules.update(changed)
                    await self._repair()
                    self._is_read = True
            self._tell_clashes()

    async def guard(self) -> None:
        """Looks after the table when others have been at work."""
        touched = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._watch.fileno(), touched.set)
        try:
            while True:
                await touched.wait()
                await self._clock.sleep(SETTLE_SECONDS)
                async with self._kernel:
                    touched.clear()
                    seen, own = self._watch.transactions(), self._own
                    self._own = 0
                    if self._is_read and (seen is None or seen > own):
                        await self._repair()
        finally:
            loop.remove_reader(self._watch.fileno())

    def _served(self, name: Name) -> frontend.Served:
        namespace, service = name
        slices = self.view.list(EndpointSlice, index=("service", f"{namespace}/{service}"))
        return frontend.served(self.view.get(Service, *name), slices, self._node)

    async def _carry_out(self, changes: ruleset.Changes) -> None:
        if not changes:
            return
        try:
            await self._do(changes)
        except nft.NftError as error:
            log.warning("nftables: %s; comparing all", error)
            await self._repair()

    async def _repair(self) -> None:
        """Reads the table, and makes it right, until it is."""
        while True:
            listing = await asyncio.to_thread(self._library.listing, f"table {ruleset.WHERE}")
            changes = self._rules.repair(await asyncio.to_thread(ruleset.parse, listing))
            if not changes:
                return
            try:
                await self._do(changes)
                await self._forget_clients(ruleset.AFFINITY)
                return
            except nft.NftError as error:
                log.warning("nftables: %s; again in %s s", error, AGAIN_SECONDS)
            await self._clock.sleep(AGAIN_SECONDS)

    async def _do(self, changes: ruleset.Changes) -> None:
        moved = self._rules.moved(changes)
        table = self._rules.table
        affine = {name for front in moved if (name := ruleset.remembers(table, front))}
        await self._run(ruleset.script(changes))
        self._rules.table.carry_out(changes)
        log.info(
            "rules: %d elements more, %d less, %d chains",
            len(changes.added),
            len(changes.removed),
            len(changes.chains),
        )
        flows = {front: backends for front, backends in moved.items() if front.protocol == "udp"}
        if flows:
            count = await asyncio.to_thread(conntrack.forget, flows)
            log.info("flows of UDP forgotten: %d", count)
        await self._forget_clients(affine)

    async def _forget_clients(self, maps: Iterable[str]) -> None:
        """Clients stay with endpoints that are there, and nowhere else."""
        for name in sorted(maps):
            listing = await asyncio.to_thread(self._library.listing, f"map {ruleset.WHERE} {name}")
            for key in self._rules.strays(ruleset.clients(listing)):
                # One by one: any of them may have come to its own end.
                with contextlib.suppress(nft.NftError):
                    await self._run(ruleset.script(ruleset.Changes(removed={key: None})))

    async def _run(self, script: str) -> None:
        await asyncio.to_thread(self._library.run, script)
        self._own += 1

    def _tell_clashes(self) -> None:
        clashes = dict(self._rules.clashes())
        for front, names in clashes.items():
            if front not in self._clashes:
                said = ", ".join("/".join(name) for name in names)
                log.warning("%s is claimed by %s: the first has it", front, said)
        self._clashes = set(clashes)


def _concerned(changes: Iterable[Change]) -> Iterable[Name]:
    """The services that changes are about."""
    for change in changes:
        if change.name.kind == Service.DESCRIPTOR.full_name:
            yield change.name.namespace, change.name.name
            continue
        for each in (change.old, change.new):
            for found in () if each is None else _service(each):
                namespace, _, service = found.partition("/")
                yield namespace, service


def _service(each: EndpointSlice) -> Iterable[str]:
    """Index: slices by their service."""
    name = each.metadata.labels.get(frontend.SERVICE_NAME)
    if name:
        yield f"{each.metadata.namespace}/{name}"
