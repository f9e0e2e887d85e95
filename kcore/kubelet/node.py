"""The kubelet's Node: registered, kept as the machine and its runtime are, and alive by its lease.

    await node.run(api, runtime, node.Settings("n1", root), clock, chance)

The Node is read every ten seconds and written only when something of ours is not as it should be,
or was last confirmed five minutes ago; so a Node that is deleted comes back, and one that somebody
believed lost is confirmed. Labels, taints, resources and conditions that others set stay: every
write is a merge of our own fields. The runtime is asked more often, and much more while it is not
ready. The lease is renewed every ten seconds, whatever else goes on.

`status` and `labels` are pure. It must not know pods.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import affinity_pb2, node_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

import kcore
from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kubelet import cri, machine
from kcore.kubelet.machine import Machine
from kcore.reconcile import owner, transaction
from kcore.reconcile.recorder import Recorder
from kcore.tasks import Tasks
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

Node = node_pb2.Node
Lease = lease_pb2.Lease

MANAGER = "kubelet"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
# How often the Node is compared with what it should be, and confirmed though nothing changed.
COMPARE_SECONDS = 10.0
CONFIRM_SECONDS = 300.0
# How often the runtime is asked: while it is not ready, and while it is.
QUICK_SECONDS = 0.2
SLOW_SECONDS = 2.0
# A runtime that was ready may be restarted in this time without anybody noticing.
PATIENCE_SECONDS = 5.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
CONFLICTS = 5

# What is kept from pods, and when pods have to go: as Kubernetes' eviction does.
RESERVED_MEMORY = 100 << 20
LEAST_DISK_PERCENT = 10
LEAST_INODES_PERCENT = 5
MOST_PROCESSES_PERCENT = 90

_RESOURCES = ("cpu", "memory", "ephemeral-storage", "pods")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is told about itself."""

    name: str
    # Where pods' files are; its file system is the node's disk.
    root: Path
    # Addresses that the node is reached by; none: that of the default route.
    addresses: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    # Only when the Node is made; later they are other people's.
    taints: Sequence[affinity_pb2.Taint] = ()
    most_pods: int = 110


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the runtime says of itself; `trouble`: why it is not ready."""

    version: str = ""
    trouble: str = ""


def labels(settings: Settings, of: Machine) -> dict[str, str]:
    """Labels that are ours."""
    return {
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": of.operating_system,
        "kubernetes.io/arch": of.architecture,
        **settings.labels,
    }


def status(
    settings: Settings, of: Machine, runtime: Runtime, old: node_pb2.NodeStatus, now: float
) -> node_pb2.NodeStatus:
    """The status as it should be: what is not ours stays as in `old`."""
    made = node_pb2.NodeStatus()
    made.CopyFrom(old)
    disk = of.disk
    for name, all_of_it, pods_part in (
        ("cpu", str(of.cpus), str(of.cpus)),
        ("memory", _kib(of.memory), _kib(max(0, of.memory - RESERVED_MEMORY))),
        ("ephemeral-storage", _kib(disk), _kib(disk * (100 - LEAST_DISK_PERCENT) // 100)),
        ("pods", str(settings.most_pods), str(settings.most_pods)),
    ):
        made.capacity[name].string = all_of_it
        made.allocatable[name].string = pods_part
    made.ClearField("addresses")
    for address in settings.addresses or of.addresses:
        made.addresses.add(type="InternalIP", address=address)
    made.addresses.add(type="Hostname", address=settings.name)
    made.node_info.CopyFrom(
        node_pb2.NodeSystemInfo(
            machine_id=of.machine_id,
            system_uuid=of.system_uuid,
            boot_id=of.boot_id,
            kernel_version=of.kernel_version,
            os_image=of.os_image,
            # A runtime that is down is still the one that it was.
            container_runtime_version=runtime.version or old.node_info.container_runtime_version,
            kubelet_version=f"v{kcore.__version__}",
            operating_system=of.operating_system,
            architecture=of.architecture,
        )
    )
    for type_, holds, reason, message in _conditions(of, runtime):
        _set(made, type_, holds, reason, message, now)
    return made


def _kib(amount: int) -> str:
    return f"{amount // 1024}Ki"


def _conditions(of: Machine, runtime: Runtime) -> Sequence[tuple[str, bool, str, str]]:
    memory = of.memory_available < RESERVED_MEMORY
    disk = (
        of.disk_available * 100 < of.disk * LEAST_DISK_PERCENT
        or of.inodes_available * 100 < of.inodes * LEAST_INODES_PERCENT
    )
    processes = of.processes * 100 > of.most_processes * MOST_PROCESSES_PERCENT
    ready = not runtime.trouble
    return (
        (
            "MemoryPressure",
            memory,
            "KubeletHasInsufficientMemory" if memory else "KubeletHasSufficientMemory",
            f"kubelet has {'in' if memory else ''}sufficient memory available",
        ),
        (
            "DiskPressure",
            disk,
            "KubeletHasDiskPressure" if disk else "KubeletHasNoDiskPressure",
            f"kubelet has {'' if disk else 'no '}disk pressure",
        ),
        (
            "PIDPressure",
            processes,
            "KubeletHasInsufficientPID" if processes else "KubeletHasSufficientPID",
            f"kubelet has {'in' if processes else ''}sufficient PID available",
        ),
        (
            "Ready",
            ready,
            "KubeletReady" if ready else "KubeletNotReady",
            runtime.trouble or "kubelet is posting ready status",
        ),
    )


def _set(
    made: node_pb2.NodeStatus, type_: str, holds: bool, reason: str, message: str, now: float
) -> None:
    value = "True" if holds else "False"
    for condition in made.conditions:
        if condition.type == type_:
            break
    else:
        condition = made.conditions.add(type=type_)
    if condition.status != value:
        condition.status = value
        condition.last_transition_time.CopyFrom(meta_pb2.Time(seconds=int(now)))
    condition.reason, condition.message = reason, message


def confirmed(of: node_pb2.NodeStatus, now: float) -> None:
    """Notes on the conditions that are ours that they hold now."""
    for condition in of.conditions:
        if condition.type in _OURS:
            condition.last_heartbeat_time.CopyFrom(meta_pb2.Time(seconds=int(now)))


_OURS = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")


def is_ready(of: node_pb2.NodeStatus) -> bool:
    """Whether pods can run there."""
    return any(one.type == "Ready" and one.status == "True" for one in of.conditions)


def _is_stale(of: node_pb2.NodeStatus, now: float) -> bool:
    """Whether nobody has confirmed it for long; a clock that was set back counts, too."""
    beats = [one.last_heartbeat_time.seconds for one in of.conditions if one.type == "Ready"]
    return not beats or abs(now - beats[0]) >= CONFIRM_SECONDS


async def ask(runtime: cri.Runtime) -> Runtime:
    """What the runtime says of itself."""
    try:
        version = await runtime.version()
        said = await runtime.status()
    except cri.CriError as error:
        why = error.message or error.code.name
        return Runtime(
            trouble=f"container runtime is down: {why}: start it (`kcore up` starts its own again)"
        )
    name = f"{version.runtime_name}://{version.runtime_version}"
    troubles = []
    found = {one.type: one for one in said.status.conditions}
    for type_, what in (
        ("RuntimeReady", "container runtime status check may not have completed yet"),
        ("NetworkReady", "container runtime network not ready"),
    ):
        one = found.get(type_)
        if one is None:
            troubles.append(what)
        elif not one.status:
            said_so = f"{type_}=false reason:{one.reason} message:{one.message}"
            what = what if type_ == "NetworkReady" else "container runtime not ready"
            troubles.append(f"{what}: {said_so}")
    return Runtime(name, ", ".join(troubles))


async def run(
    api: Api,
    runtime: cri.Runtime,
    node: Settings,
    clock: Clock,
    chance: Chance,
    *,
    look: Callable[[Path], Machine] = machine.look,
    recorder: Recorder | None = None,
) -> None:
    """Keeps the Node and its lease, for ever. What the API refuses is tried again."""
    keeper = _Keeper(api, runtime, node, clock, chance, look, recorder)
    async with Tasks() as tasks:
        tasks.start(keeper.renew(), f"lease of {node.name}")
        tasks.start(keeper.keep(), f"node {node.name}")


@dataclass
class _Keeper:
    """The life of one Node."""

    api: Api
    runtime: cri.Runtime
    settings: Settings
    clock: Clock
    chance: Chance
    look: Callable[[Path], Machine]
    recorder: Recorder | None
    # The Node as it was last seen; None before it is registered.
    _live: node_pb2.Node | None = None
    # The uid of the Node that the lease belongs to.
    _leased_for: str = ""
    _registered: asyncio.Event = field(default_factory=asyncio.Event)
    # What was last logged of each kind of failure.
    _logged: dict[str, str] = field(default_factory=dict)

    async def keep(self) -> None:
        """Asks the runtime and keeps the Node."""
        said, good_at, compared_at = Runtime(), float("-inf"), float("-inf")
        wait = FIRST_WAIT_SECONDS
        while True:
            fresh = await ask(self.runtime)
            now = self.clock.monotonic()
            if not fresh.trouble:
                good_at = now
            elif not fresh.version and now - good_at < PATIENCE_SECONDS:
                # It does not answer: perhaps it will in a moment.
                fresh = said
            pause = SLOW_SECONDS if now == good_at else QUICK_SECONDS
            if fresh != said or now - compared_at >= COMPARE_SECONDS or self._live is None:
                try:
                    await self._compare(fresh)
                except ApiError as error:
                    self._log("node", error)
                    pause = wait * self.chance.uniform(0.5, 1.0)
                    wait = min(wait * 2, LONGEST_WAIT_SECONDS)
                    compared_at = float("-inf")
                else:
                    self._logged.pop("node", None)
                    wait, compared_at, said = FIRST_WAIT_SECONDS, now, fresh
            await self.clock.sleep(pause)

    async def _compare(self, runtime: Runtime) -> None:
        """Makes the Node what it should be."""
        for _ in range(CONFLICTS):
            of = self.look(self.settings.root)
            try:
                live = await self._read()
                if live is None:
                    await self._register(of, runtime)
                else:
                    await self._correct(live, of, runtime)
                return
            except ApiError as error:
                # Somebody else wrote it just now, or it came or went: look again.
                if error.reason not in (Reason.CONFLICT, Reason.ALREADY_EXISTS, Reason.NOT_FOUND):
                    raise
        raise ApiError(Reason.CONFLICT, f"node {self.settings.name} keeps changing")

    async def _read(self) -> node_pb2.Node | None:
        try:
            answer = await self.api.get(pb.GetRequest(ref=_ref(self.settings.name)))
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            self._live = None
            return None
        live = Node.FromString(answer.object)
        before, self._live = self._live, live
        self._registered.set()
        if before is None:
            logger.info("node %s is registered", self.settings.name)
            self._tell(live, "Starting", "Starting kubelet.")
        return live

    async def _register(self, of: Machine, runtime: Runtime) -> None:
        """Makes the Node with its status: nobody sees it without."""
        fresh = Node(metadata=meta_pb2.ObjectMeta(name=self.settings.name))
        fresh.metadata.labels.update(labels(self.settings, of))
        fresh.spec.taints.extend(self.settings.taints)
        now = self.clock.now()
        fresh.status.CopyFrom(status(self.settings, of, runtime, node_pb2.NodeStatus(), now))
        confirmed(fresh.status, now)
        operations = [
            pb.Operation(ref=_ref(self.settings.name), create=_bytes(fresh)),
            _merge(fresh, ["status"], "status"),
        ]
        await self._commit(pb.Transaction(operations=operations))
        await self._read()
        self._announce(None, fresh)

    async def _correct(self, live: node_pb2.Node, of: Machine, runtime: Runtime) -> None:
        """Writes what of ours is not as it should be."""
        ours = labels(self.settings, of)
        operations = []
        if wrong := [key for key in sorted(ours) if live.metadata.labels.get(key) != ours[key]]:
            wanted = Node()
            wanted.metadata.labels.update(ours)
            operations.append(_merge_of(live, wanted, [f"metadata.labels.{key}" for key in wrong]))
        now = self.clock.now()
        fresh = Node()
        fresh.status.CopyFrom(status(self.settings, of, runtime, live.status, now))
        if fresh.status != live.status or _is_stale(live.status, now):
            confirmed(fresh.status, now)
            paths = [f"status.{part}.{name}" for part in _AMOUNTS for name in _RESOURCES]
            paths += ["status.addresses", "status.conditions", "status.nodeInfo"]
            operations.append(_merge_of(live, fresh, paths, "status"))
        if not operations:
            return
        # Lists are merged as a whole, with what others put there: only if nobody wrote meanwhile.
        guards = transaction.same(_ref(live.metadata.name), live.metadata, unchanged=True)
        await self._commit(pb.Transaction(guards=guards, operations=operations))
        self._announce(live, fresh)
        await self._read()

    def _announce(self, before: node_pb2.Node | None, after: node_pb2.Node) -> None:
        ready = is_ready(after.status)
        if self._live is None or ready == (before is not None and is_ready(before.status)):
            return
        reason = "NodeReady" if ready else "NodeNotReady"
        self._tell(self._live, reason, f"Node {self.settings.name} status is now: {reason}")

    def _tell(self, about: node_pb2.Node, reason: str, message: str) -> None:
        if self.recorder is not None:
            self.recorder.tell(owner.about(about), "Normal", reason, message)

    async def renew(self) -> None:
        """Renews the lease."""
        await self._registered.wait()
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                await self._renew()
            except ApiError as error:
                self._log("lease", error)
                pause = wait * self.chance.uniform(0.5, 1.0)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            else:
                self._logged.pop("lease", None)
                pause, wait = RENEW_SECONDS * self.chance.uniform(0.96, 1.0), FIRST_WAIT_SECONDS
            await self.clock.sleep(pause)

    async def _renew(self) -> None:
        name = self.settings.name
        lease = Lease(metadata=meta_pb2.ObjectMeta(namespace=LEASE_NAMESPACE, name=name))
        lease.spec.holder_identity = name
        lease.spec.lease_duration_seconds = LEASE_SECONDS
        now = self.clock.now()
        lease.spec.renew_time.seconds = int(now)
        lease.spec.renew_time.nanos = int(now % 1 * 1_000_000) * 1000
        paths = ["spec.holderIdentity", "spec.leaseDurationSeconds", "spec.renewTime"]
        live = self._live
        uid = live.metadata.uid if live is not None else self._leased_for
        if live is not None:
            reference = owner.reference(live)
            reference.ClearField("controller")
            reference.ClearField("block_owner_deletion")
            lease.metadata.owner_references.append(reference)
            if uid != self._leased_for:
                paths.append("metadata.ownerReferences")
        try:
            await self._commit(pb.Transaction(operations=[_merge(lease, paths)]))
        except ApiError as error:
            # Whose it is will be known in a moment.
            if error.reason is not Reason.NOT_FOUND or live is None:
                raise
            await self._commit(transaction.create(lease))
        self._leased_for = uid

    async def _commit(self, wanted: pb.Transaction) -> None:
        wanted.request_id, wanted.manager = self.chance.uid(), MANAGER
        await self.api.commit(pb.CommitRequest(transactions=[wanted]))

    def _log(self, what: str, error: ApiError) -> None:
        said = str(error)
        if self._logged.get(what) != said:
            self._logged[what] = said
            logger.warning("%s of %s: %s; trying again", what, self.settings.name, said)


_AMOUNTS = ("capacity", "allocatable")


def _ref(name: str) -> pb.Ref:
    return pb.Ref(kind=Node.DESCRIPTOR.full_name, name=name)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _merge(of: Message, paths: Sequence[str], subresource: str = "") -> pb.Operation:
    return _merge_of(of, of, paths, subresource)


def _merge_of(
    live: Message, wanted: Message, paths: Sequence[str], subresource: str = ""
) -> pb.Operation:
    merge = pb.Merge(object=_bytes(wanted), mask=field_mask_pb2.FieldMask(paths=paths))
    return pb.Operation(
        ref=transaction.ref(live), subresource=subresource, patch=pb.Patch(merge=merge)
    )
