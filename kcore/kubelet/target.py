"""Which container a stream's target means, right now.

`Targets(pods, logs)(target, previous)` answers for stream.run. The container is the one named, or
the pod's default: what its annotation says, or the first. Errors say what the pod is waiting for.
"""

from dataclasses import dataclass
from pathlib import Path

from kcore_api.kcore.api.v1 import pod_stream_pb2
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import container, sync
from kcore.kubelet.observed import Container
from kcore.kubelet.pods import Pods
from kcore.kubelet.stream import Found
from kcore.kubelet.worker import Worker
from kcore.wire.errors import ApiError, Reason

DEFAULT = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True)
class Targets:
    """Looks targets up among the pods of this node."""

    pods: Pods
    logs: Path

    def __call__(self, target: pod_stream_pb2.Target, previous: bool) -> Found:
        """What the target means. Raises ApiError where it is not there, or not yet."""
        worker = self.pods.find(target.namespace, target.pod)
        if worker is None or (target.uid and self._uid(worker) != target.uid):
            raise ApiError(Reason.NOT_FOUND, f'pod "{target.pod}" is not on this node')
        name = target.container or _default(worker.pod)
        every = [one.name for one in sync.every(worker.pod)]
        if name not in every:
            said = f'container "{name}" is not in pod "{target.pod}"; it has {", ".join(every)}'
            raise ApiError(Reason.NOT_FOUND, said)
        return self._found(worker, name, previous)

    def _uid(self, worker: Worker) -> str:
        # A static pod is known to the API by its mirror, which has a uid of its own.
        uid = worker.pod.metadata.uid
        return str(self.pods.mirrors[uid].metadata.uid if uid in self.pods.mirrors else uid)

    def _found(self, worker: Worker, name: str, previous: bool) -> Found:
        pod, seen = worker.pod, worker.observed
        one = seen.before(name) if previous else _last_started(worker, name)
        if one is None:
            if previous:
                said = f'previous terminated container "{name}" in pod "{pod.metadata.name}"'
                raise ApiError(Reason.NOT_FOUND, f"{said} not found")
            now = worker.node.clock.monotonic()
            reason, message = sync.waiting(pod, name, seen, worker.memory, now)
            said = f'container "{name}" in pod "{pod.metadata.name}" is waiting to start: {reason}'
            raise ApiError(Reason.REFUSED, f"{said}: {message}" if message else said)
        found = one

        def ended() -> bool:
            there = next((each for each in worker.observed.containers if each.id == found.id), None)
            return there is None or there.state == "exited"

        directory = container.log_directory(self.logs, pod)
        return Found(
            container_id=found.id,
            sandbox_id=found.sandbox,
            log_path=directory / container.log_path(name, found.attempt),
            ended=ended,
        )


def _last_started(worker: Worker, name: str) -> Container | None:
    started = (one for one in worker.observed.containers if one.name == name)
    return next((one for one in started if one.state in ("running", "exited")), None)


def _default(pod: pod_pb2.Pod) -> str:
    wanted = pod.metadata.annotations.get(DEFAULT, "")
    if any(one.name == wanted for one in sync.every(pod)):
        return str(wanted)
    return str(pod.spec.containers[0].name) if pod.spec.containers else ""
