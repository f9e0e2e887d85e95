"""The pods that the API has bound to this node, followed by a watch.

`Bound(node, path, clock, changed).run(api)` keeps `pods` and `mirrors` up to date. A state is taken
whole or not at all, and only from the cluster that this node belongs to; a pod is `gone` when the
API says so, or has a whole state without it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.clock import Clock
from kcore.kubelet.belonging import Belonging, Foreign
from kcore.kubelet.static_pod import MIRROR
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
FOREIGN_SECONDS = 10.0
PROGRESS_MS = 1000
POD = pod_pb2.Pod.DESCRIPTOR.full_name


@dataclass
class Bound:
    """What the API says, as far as it has come."""

    node: str
    # Where the node's memory of its cluster is kept.
    path: Path
    clock: Clock
    # Something below is another one now.
    changed: Callable[[], None]
    # By uid.
    pods: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    # What the API shows of static pods, by the static pods' uids.
    mirrors: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    # The last that was heard of pods which are no more, by uid; whoever has ended them removes it.
    gone: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    # Whether a whole state has been seen.
    is_complete: bool = False
    _let_go: set[str] = field(default_factory=set)
    _revision: int = 0

    def let_go(self, uid: str) -> None:
        """The pod has ended here: what the API may still say of it is over."""
        self.pods.pop(uid, None)
        self.gone.pop(uid, None)
        self._let_go.add(uid)

    async def run(self, api: Api) -> None:
        """For ever."""
        belonging = Belonging(self.path)
        digest, refused = "", ""
        while True:
            pause = AGAIN_SECONDS
            try:
                server = await api.kinds(pb.KindsRequest(digest=digest))
                digest = server.digest
                if belonging.meet(server):
                    self._revision = 0
                await self._follow(api, belonging)
            except ApiError as error:
                if error.reason is Reason.GONE:
                    self._revision = 0
                log.info("watch of pods: %s", error)
            except Foreign as error:
                self._revision, pause = 0, FOREIGN_SECONDS
                if refused != str(error):
                    refused = str(error)
                    log.error("%s", error)
            await self.clock.sleep(pause)

    async def _follow(self, api: Api, belonging: Belonging) -> None:
        """One watch."""
        selection = pb.Selection(
            kind=POD, fields=f"spec.nodeName={self.node}", from_revision=self._revision
        )
        fresh: list[pb.Event] | None = None if self._revision else []
        async for response in api.watch(
            pb.WatchRequest(selections=[selection], progress_ms=PROGRESS_MS)
        ):
            if fresh is not None:
                fresh.extend(response.events)
                if not response.synced:
                    continue
            belonging.see(response.revision, self.clock.monotonic())
            if fresh is not None:
                self._begin(fresh)
                fresh = None
            else:
                for event in response.events:
                    self._take(event)
            self._revision = response.revision
            self.changed()

    def _begin(self, events: list[pb.Event]) -> None:
        """This is all there is."""
        before, self.pods = self.pods, {}
        self.mirrors = {}
        for event in events:
            self._take(event)
        for uid, pod in before.items():
            if uid not in self.pods:
                self.gone[uid] = pod
        self._let_go &= {pod_pb2.Pod.FromString(event.object).metadata.uid for event in events}
        self.is_complete = True

    def _take(self, event: pb.Event) -> None:
        pod = pod_pb2.Pod.FromString(event.object)
        uid = pod.metadata.uid
        is_there = event.type != pb.Event.DELETED
        if of := pod.metadata.annotations.get(MIRROR):
            if is_there:
                self.mirrors[of] = pod
            elif self.mirrors.get(of, pod).metadata.uid == uid:
                self.mirrors.pop(of, None)
        elif not is_there:
            self._let_go.discard(uid)
            if self.pods.pop(uid, None) is not None:
                self.gone[uid] = pod
        elif uid not in self._let_go:
            self.pods[uid] = pod
