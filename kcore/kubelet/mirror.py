"""Mirrors: what the API shows of static pods.

A static pod runs whether there is an API or not; its mirror is a pod of the same name that says so
to people. It carries the static pod's uid in the annotation kubernetes.io/config.mirror, belongs to
the Node, and is only ever made and deleted: one that is deleted comes back, one of another text is
replaced, one without its file goes. Nothing that is done to a mirror reaches the static pod.

`plan` is pure; `run` does what it says, for ever. Statuses are written by whoever reports those of
all pods.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kubelet.static_pod import MIRROR
from kcore.reconcile import owner, transaction
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

Pod = pod_pb2.Pod
Node = node_pb2.Node
# By the static pods' uids.
Pods = Mapping[str, pod_pb2.Pod]

MANAGER = "kubelet"
LOOK_SECONDS = 0.5
# A pod that the API refuses is offered again after a while: a namespace may have been missing.
REFUSED_SECONDS = 10.0
_FINE = (Reason.ALREADY_EXISTS, Reason.NOT_FOUND, Reason.CONFLICT)


def of(static: pod_pb2.Pod, node: node_pb2.Node) -> pod_pb2.Pod:
    """The mirror of a static pod."""
    made = Pod()
    made.CopyFrom(static)
    made.ClearField("status")
    meta = made.metadata
    meta.annotations[MIRROR] = static.metadata.uid
    meta.ClearField("uid")
    meta.ClearField("owner_references")
    reference = owner.reference(node)
    reference.ClearField("block_owner_deletion")
    meta.owner_references.append(reference)
    return made


def plan(static: Pods, live: Pods, node: node_pb2.Node | None) -> list[pb.Transaction]:
    """What makes the mirrors what they should be: deletions, then creations.

    `live`: mirrors by what they say that they mirror. Without its Node nothing can be made.
    """
    steps = []
    for uid, mirror in sorted(live.items()):
        if _is_right(uid, mirror, static, node):
            continue
        # At once: what it shows ends, or not, on this node's own account.
        steps.append(transaction.delete(mirror, grace_seconds=0))
    if node is None:
        return steps
    for uid, pod in sorted(static.items()):
        mirror_now = live.get(uid)
        if mirror_now is None or not _is_right(uid, mirror_now, static, node):
            steps.append(transaction.create(of(pod, node)))
    return steps


def _is_right(uid: str, mirror: pod_pb2.Pod, static: Pods, node: node_pb2.Node | None) -> bool:
    meta = mirror.metadata
    pod = static.get(uid)
    return (
        pod is not None
        and (pod.metadata.namespace, pod.metadata.name) == (meta.namespace, meta.name)
        and not meta.HasField("deletion_timestamp")
        and (node is None or owner.managed_by(meta, node.metadata.uid))
    )


async def run(
    api: Api,
    node: str,
    static: Callable[[], Pods | None],
    live: Callable[[], Pods | None],
    clock: Clock,
    chance: Chance,
) -> None:
    """Keeps the mirrors, for ever.

    `static`: the static pods; `live`: the mirrors that the API has, by the annotation that says
    whose they are. None: not read whole yet. Both may be a little late.
    """
    refused: dict[str, tuple[str, float]] = {}
    pause = LOOK_SECONDS
    while True:
        await clock.sleep(pause)
        pause = LOOK_SECONDS
        wanted, there = static(), live()
        if wanted is None or there is None:
            continue
        now = clock.monotonic()
        refused = {uid: one for uid, one in refused.items() if uid in wanted}
        offered = {uid: pod for uid, pod in wanted.items() if not _waits(uid, refused, there, now)}
        if not plan(offered, there, None) and all(uid in there for uid in offered):
            # The owner is only of interest where something is to be made.
            continue
        try:
            owning = await _node(api, node)
            for step, error in await _commit(api, plan(offered, there, owning), chance):
                _note(step, error, refused, now)
        except ApiError as error:
            logger.info("mirrors of %s: %s", node, error)
            pause = LOOK_SECONDS * chance.uniform(1.0, 4.0)


def _waits(uid: str, refused: Mapping[str, tuple[str, float]], there: Pods, now: float) -> bool:
    return uid in refused and uid not in there and now - refused[uid][1] < REFUSED_SECONDS


def _note(
    step: pb.Transaction,
    error: ApiError | None,
    refused: dict[str, tuple[str, float]],
    now: float,
) -> None:
    """Remembers what was refused, and says it once."""
    do = step.operations[0]
    if error is None or not do.HasField("create"):
        return
    if error.reason in _FINE and error.reason is not Reason.NOT_FOUND:
        return
    uid = Pod.FromString(do.create).metadata.annotations[MIRROR]
    if refused.get(uid, ("",))[0] != str(error):
        logger.warning("static pod %s runs, but can't be shown: %s", do.ref.name, error)
    refused[uid] = str(error), now


async def _node(api: Api, name: str) -> node_pb2.Node | None:
    ref = pb.Ref(kind=Node.DESCRIPTOR.full_name, name=name)
    try:
        return Node.FromString((await api.get(pb.GetRequest(ref=ref))).object)
    except ApiError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return None


async def _commit(
    api: Api, steps: Sequence[pb.Transaction], chance: Chance
) -> list[tuple[pb.Transaction, ApiError | None]]:
    """Each step with its error, if it had one."""
    for step in steps:
        step.request_id, step.manager = chance.uid(), MANAGER
    if not steps:
        return []
    try:
        answer = await api.commit(pb.CommitRequest(transactions=steps))
    except ApiError as error:
        # One alone raises its own error; what is unknown is looked at again.
        if len(steps) > 1 or error.reason is Reason.UNAVAILABLE:
            raise
        return [(steps[0], error)]
    return [
        (step, errors.from_status(result.error) if result.HasField("error") else None)
        for step, result in zip(steps, answer.results, strict=True)
    ]
