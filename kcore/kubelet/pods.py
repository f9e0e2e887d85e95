"""The pods of one node: a worker for each, fed by the API, the manifests and the runtime.

The API says which pods are this node's (bound), a directory says which are static, the runtime says
what there is (a relist, often while something happens, seldom while nothing does). What the runtime
or the disk has and nobody wants is ended and removed, but only when both sources have been read
whole.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import container, cri, launch, observed, refusal, volume
from kcore.kubelet.bound import Bound
from kcore.kubelet.worker import Node, Worker
from kcore.wire.api import Api

log = logging.getLogger(__name__)

QUICK_SECONDS = 0.1
SLOW_SECONDS = 1.0
AGAIN_SECONDS = 1.0
SWEEP_SECONDS = 60.0


@dataclass
class Pods:
    """All pods of a node. `run_…` are its parts, started side by side."""

    node: Node
    # By uid.
    workers: dict[str, Worker] = field(default_factory=dict)
    # Static pods by uid; None: not read yet.
    static: Mapping[str, pod_pb2.Pod] | None = None
    _seen: dict[str, observed.Observed] | None = None
    # Ended since the last look began: what it still shows of them is not so any more.
    _ended: set[str] = field(default_factory=set)
    # Pods that are not even looked at.
    _refused: set[str] = field(default_factory=set)
    _swept_at: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _bound: Bound = field(init=False)

    def __post_init__(self) -> None:
        node = self.node
        memory = node.root / "cluster.json"
        self._bound = Bound(node.name, memory, node.clock, self._changed.set)

    @property
    def mirrors(self) -> Mapping[str, pod_pb2.Pod]:
        """What the API shows of static pods, by the static pods' uids."""
        return self._bound.mirrors

    @property
    def is_complete(self) -> bool:
        """Whether all that the API has of this node's has been seen."""
        return self._bound.is_complete

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
        """These are the static pods now. Until it is said that there are none, none is ended."""
        self.static = dict(pods)
        self._changed.set()

    async def run_bound(self, api: Api) -> None:
        """Follows the API, for ever."""
        await self._bound.run(api)

    async def run_relist(self) -> None:
        """Looks at the runtime, for ever."""
        while True:
            before = set(self._ended)
            try:
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
            static = self.static or {}
            wanted = {**self._bound.pods, **static}
            for uid, pod in sorted(wanted.items()):
                if uid in self.workers:
                    self._feed(self.workers[uid], pod)
                elif self._is_sound(pod):
                    self._start(Worker(pod, self.node, bound=uid not in static))
            for uid, worker in sorted(self.workers.items()):
                worker.show(self.mirrors.get(uid))
                worker.seen(self._seen.get(uid, observed.NOTHING))
                if uid not in wanted:
                    self._end(worker)
            if self.is_complete and self.static is not None:
                self._end_strays(wanted)
                await self._sweep(wanted)

    def _feed(self, worker: Worker, pod: pod_pb2.Pod) -> None:
        if worker.pod is not pod:
            worker.want(pod)

    def _end(self, worker: Worker) -> None:
        """Nobody wants the pod any more."""
        last = self._bound.gone.pop(worker.pod.metadata.uid, None)
        if last is None:
            if worker.pod.metadata.HasField("deletion_timestamp"):
                return
            last = worker.pod
        gone = pod_pb2.Pod()
        gone.CopyFrom(last)
        if not gone.metadata.HasField("deletion_timestamp"):
            gone.metadata.deletion_timestamp.seconds = int(self.node.clock.now())
        worker.want(gone)

    def _is_sound(self, pod: pod_pb2.Pod) -> bool:
        """Whether its names may become paths here. If not, that is said once."""
        uid = pod.metadata.uid
        try:
            refusal.names(pod)
        except refusal.Refused as error:
            if uid not in self._refused:
                self._refused.add(uid)
                log.error("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, error)
                self.node.event(pod, "Warning", "FailedValidation", str(error))
            return False
        return True

    def _start(self, worker: Worker) -> None:
        uid = worker.pod.metadata.uid
        self.workers[uid] = worker

        async def live() -> None:
            try:
                await worker.run()
            finally:
                del self.workers[uid]
                self._ended.add(uid)
                if self._seen is not None:
                    self._seen.pop(uid, None)
                if worker.bound:
                    self._bound.let_go(uid)
                # A static pod may have come back meanwhile.
                self._changed.set()

        meta = worker.pod.metadata
        self.node.tasks.start(live(), f"pod {meta.namespace}/{meta.name}")

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
            self._start(Worker(stray, self.node, bound=False))

    async def _sweep(self, wanted: Mapping[str, pod_pb2.Pod]) -> None:
        """Removes now and then what is on disk of pods that are long gone."""
        assert self._seen is not None
        now = self.node.clock.monotonic()
        if self._swept_at is not None and now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        kept = {*wanted, *self.workers, *self._seen}
        await launch.on_disk(lambda: _remove_all_but(kept, self.node))


def _remove_all_but(kept: set[str], node: Node) -> None:
    places = volume.directory(node.root, "any").parent
    for uid in _inside(places):
        if uid in kept or not refusal.is_name(uid):
            continue
        # Other people's logs may lie beside ours.
        for name in _inside(node.logs):
            if container.uid_of_log_directory(name) == uid:
                shutil.rmtree(node.logs / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            volume.remove(node.root, uid)


def _inside(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir()) if directory.is_dir() else []
