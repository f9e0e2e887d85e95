"""The pods of one node: a worker for each, fed by the API, the manifests and the runtime.

The API says which pods are this node's (a watch), a directory says which are static, the runtime
says what there is (a relist, often while something happens, seldom while nothing does). What the
runtime has and nobody wants is ended, but only when both sources have been read whole.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import cri, observed
from kcore.kubelet.worker import Node, Worker
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

log = logging.getLogger(__name__)

QUICK_SECONDS = 0.1
SLOW_SECONDS = 1.0
AGAIN_SECONDS = 1.0
MIRROR = "kubernetes.io/config.mirror"
POD = pod_pb2.Pod.DESCRIPTOR.full_name


@dataclass
class Pods:
    """All pods of a node. `run_…` are its parts, started side by side."""

    node: Node
    # By uid.
    workers: dict[str, Worker] = field(default_factory=dict)
    _bound: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    _static: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    # What the API shows of static pods, by the static pod's uid.
    mirrors: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    # Deleted behind our back: their containers are still to be ended.
    _forgotten: dict[str, pod_pb2.Pod] = field(default_factory=dict)
    _seen: dict[str, observed.Observed] | None = None
    # Ended since the last look began: what it still shows of them is not so any more.
    _ended: set[str] = field(default_factory=set)
    _complete: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, namespace: str, name: str) -> Worker | None:
        """The worker of a pod, by name; of several, the one that is not being deleted."""
        found = [
            worker
            for worker in self.workers.values()
            if (worker.pod.metadata.namespace, worker.pod.metadata.name) == (namespace, name)
        ]
        found.sort(key=lambda worker: worker.pod.metadata.HasField("deletion_timestamp"))
        return found[0] if found else None

    def set_static(self, pods: Mapping[str, pod_pb2.Pod]) -> None:
        """These are the static pods now."""
        self._static = dict(pods)
        self._changed.set()

    async def run_bound(self, api: Api) -> None:
        """Follows the API, for ever."""
        selection = pb.Selection(kind=POD, fields=f"spec.nodeName={self.node.name}")
        revision = 0
        while True:
            selection.from_revision = revision
            fresh: dict[str, pod_pb2.Pod] | None = {} if revision == 0 else None
            try:
                request = pb.WatchRequest(selections=[selection], progress_ms=1000)
                async for response in api.watch(request):
                    for event in response.events:
                        self._take(event, fresh)
                    if response.synced and fresh is not None:
                        for uid in [uid for uid in self._bound if uid not in fresh]:
                            self._forget(self._bound.pop(uid))
                        self._bound = dict(fresh)
                        fresh, self._complete = None, True
                    if fresh is None:
                        revision = response.revision
                        self._changed.set()
            except ApiError as error:
                if error.reason is Reason.GONE:
                    revision = 0
                log.info("watch of pods: %s", error)
            await self.node.clock.sleep(AGAIN_SECONDS)

    def _take(self, event: pb.Event, fresh: dict[str, pod_pb2.Pod] | None) -> None:
        pod = pod_pb2.Pod.FromString(event.object)
        uid = pod.metadata.uid
        if of := pod.metadata.annotations.get(MIRROR):
            if event.type != pb.Event.DELETED:
                self.mirrors[of] = pod
            elif self.mirrors.get(of, pod).metadata.uid == uid:
                self.mirrors.pop(of, None)
            return
        if event.type == pb.Event.DELETED:
            self._bound.pop(uid, None)
            self._forget(pod)
            return
        if fresh is not None:
            fresh[uid] = pod
        self._bound[uid] = pod

    def _forget(self, pod: pod_pb2.Pod) -> None:
        if pod.metadata.uid in self.workers:
            gone = pod_pb2.Pod()
            gone.CopyFrom(pod)
            if not gone.metadata.HasField("deletion_timestamp"):
                gone.metadata.deletion_timestamp.seconds = int(self.node.clock.now())
            self._forgotten[pod.metadata.uid] = gone

    async def run_relist(self) -> None:
        """Looks at the runtime, for ever."""
        while True:
            try:
                before = set(self._ended)
                seen = await self.node.reader.list_all()
                self._seen = {uid: had for uid, had in seen.items() if uid not in self._ended}
                self._ended -= before
                self._changed.set()
            except cri.CriError as error:
                log.warning("%s", error)
                await self.node.clock.sleep(AGAIN_SECONDS)
            busy = any(worker.busy for worker in self.workers.values())
            await self.node.clock.sleep(QUICK_SECONDS if busy else SLOW_SECONDS)

    async def run_workers(self) -> None:
        """Starts and feeds the workers, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._seen is None:
                continue
            wanted = {**self._bound, **self._static}
            for uid, pod in sorted(wanted.items()):
                if (worker := self.workers.get(uid)) is None:
                    self._start(uid, pod)
                elif worker.pod is not pod:
                    worker.want(pod)
            for uid, worker in sorted(self.workers.items()):
                worker.seen(self._seen.get(uid, observed.NOTHING))
                if uid in wanted:
                    continue
                if (gone := self._forgotten.pop(uid, None)) is not None:
                    worker.want(gone)
                elif not worker.pod.metadata.HasField("deletion_timestamp"):
                    self._forget(worker.pod)
                    worker.want(self._forgotten.pop(uid))
            if self._complete:
                self._end_strays(wanted)

    def _start(self, uid: str, pod: pod_pb2.Pod) -> None:
        assert self._seen is not None
        worker = Worker(pod, self.node)
        self.workers[uid] = worker

        async def live() -> None:
            try:
                await worker.run()
            finally:
                del self.workers[uid]
                self._ended.add(uid)
                if self._seen is not None:
                    self._seen.pop(uid, None)
                self._forgotten.pop(uid, None)
                self._bound.pop(uid, None)

        self.node.tasks.start(live(), f"pod {pod.metadata.namespace}/{pod.metadata.name}")

    def _end_strays(self, wanted: Mapping[str, pod_pb2.Pod]) -> None:
        """Ends what the runtime has of pods that nobody wants."""
        assert self._seen is not None
        for uid, there in sorted(self._seen.items()):
            if uid in wanted or uid in self.workers or not there.sandboxes + there.containers:
                continue
            stray = pod_pb2.Pod()
            stray.metadata.uid = uid
            stray.metadata.name, stray.metadata.namespace = self.node.reader.names.get(
                uid, (uid, "")
            )
            stray.metadata.deletion_timestamp.seconds = int(self.node.clock.now())
            for name in sorted({one.name for one in there.containers}):
                stray.spec.containers.add(name=name)
            log.info("nobody wants pod %s (%s): ending it", stray.metadata.name, uid)
            self._start(uid, stray)
