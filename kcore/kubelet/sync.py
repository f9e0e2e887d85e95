"""The kubelet's heart: from what is wanted and what is there to what to do next.

`plan(pod, observed, memory, now)` is pure and total: it may be asked at any moment, after any
crash, and answers the next steps and when to ask again. Nothing is remembered that the runtime
does not know itself, but for failures to get images and to start (`Memory`), which a restarted
kubelet may well try again.

Restarts: at once the first time, then after 10, 20, 40 … 300 s; after ten minutes of running it
begins anew. The wait before a start is noted on the container, so the next follows from it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet.observed import Container, Observed

FIRST_DELAY_SECONDS = 10.0
MOST_DELAY_SECONDS = 300.0
STEADY_SECONDS = 600.0
DEFAULT_GRACE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Make the pod's volumes and a sandbox."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """End a sandbox and give back its address."""

    id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove a sandbox that has ended, with its containers."""

    id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Get the image, make the container, start it."""

    name: str
    attempt: int
    sandbox: str
    delay: float


@dataclass(frozen=True, slots=True)
class Kill:
    """Stop signal, then SIGKILL when the grace is over."""

    id: str
    name: str
    grace_seconds: int
    why: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove an ended instance that nobody asks about any more."""

    id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing of the pod runs: say so, take away its volumes and logs, let its object go."""


Step = RunSandbox | StopSandbox | RemoveSandbox | Start | Kill | RemoveContainer | Finish


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a container does not start, and when to try again; `delay` is what was waited."""

    reason: str
    message: str
    again_at: float
    delay: float


@dataclass
class Memory:
    """What a worker knows beyond the runtime."""

    # Container name, or "" for the sandbox -> why it does not start.
    problems: dict[str, Problem] = field(default_factory=dict)
    # Container id -> when the kill that is under way ends its grace.
    killing: dict[str, float] = field(default_factory=dict)
    # Set once: the pod has failed as a whole ("DeadlineExceeded", "Evicted", …).
    failed: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and when to ask again if nothing happens; None: only then."""

    steps: tuple[Step, ...] = ()
    again_at: float | None = None


def plan(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> Plan:
    """The next steps for a pod."""
    if ending(pod, memory):
        return _end(pod, observed, memory, now)
    if over(pod, observed):
        return _settle(pod, observed)
    box = observed.sandboxes[0] if observed.sandboxes else None
    if box is None or not box.ready:
        return _new_sandbox(observed, memory, now)
    steps: list[Step] = _leftovers(observed)
    again: list[float] = []
    for container in _due(pod, observed):
        step, at = _container(pod, container, observed, memory, now)
        if step is not None:
            steps.append(step)
        if at is not None:
            again.append(at)
    if (deadline := deadline_at(pod)) is not None:
        again.append(deadline)
    return Plan(tuple(steps), min(again, default=None))


def ending(pod: pod_pb2.Pod, memory: Memory) -> bool:
    """Whether everything of the pod has to end."""
    return (
        pod.metadata.HasField("deletion_timestamp")
        or memory.failed is not None
        or pod.status.phase in ("Succeeded", "Failed")
    )


def over(pod: pod_pb2.Pod, observed: Observed) -> bool:
    """Whether every container has ended and none will start again."""
    policy = pod.spec.restart_policy or "Always"
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            continue
        newest = observed.newest(container.name)
        if newest is None or newest.state != "exited":
            return False
        if newest.exit_code != 0:
            return policy == "Never"
    for container in pod.spec.containers:
        newest = observed.newest(container.name)
        if newest is None or newest.state != "exited":
            return False
        if restarts(policy, newest.exit_code):
            return False
    return True


def is_sidecar(container: container_pb2.Container) -> bool:
    """Whether an init container runs beside the others instead of before them."""
    return bool(container.restart_policy == "Always")


def restarts(policy: str, exit_code: int) -> bool:
    """Whether a container that ended so starts again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def policy_of(pod: pod_pb2.Pod, container: container_pb2.Container) -> str:
    """A container's restart policy: its pod's, but init containers end when they succeed."""
    policy = pod.spec.restart_policy or "Always"
    if is_sidecar(container):
        return "Always"
    if policy == "Always" and container.name in {one.name for one in pod.spec.init_containers}:
        return "OnFailure"
    return str(policy)


def next_delay(ended: Container) -> float:
    """Seconds from a container's end to its next start."""
    if ended.started_at and ended.finished_at - ended.started_at >= STEADY_SECONDS:
        return 0.0
    if ended.attempt == 0:
        return 0.0
    return min(MOST_DELAY_SECONDS, max(FIRST_DELAY_SECONDS, ended.delay * 2))


def problem(before: Problem | None, reason: str, message: str, now: float) -> Problem:
    """What to remember of a failure to start: waits 10, 20 … 300 s."""
    delay = min(MOST_DELAY_SECONDS, before.delay * 2) if before else FIRST_DELAY_SECONDS
    return Problem(reason, message, now + delay, delay)


def fingerprint(container: container_pb2.Container) -> str:
    """Changes with what cannot change under a running container: its image."""
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:16]


def grace(pod: pod_pb2.Pod) -> int:
    """Seconds that the pod's containers are given to end."""
    if pod.metadata.HasField("deletion_grace_period_seconds"):
        return pod.metadata.deletion_grace_period_seconds
    if pod.spec.HasField("termination_grace_period_seconds"):
        return pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE_SECONDS


def deadline_at(pod: pod_pb2.Pod) -> float | None:
    """When the pod has run as long as it may."""
    if not pod.spec.HasField("active_deadline_seconds") or not pod.status.HasField("start_time"):
        return None
    return float(pod.status.start_time.seconds + pod.spec.active_deadline_seconds)


def _end(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> Plan:
    seconds = grace(pod)
    steps: list[Step] = []
    for one in observed.running:
        until = memory.killing.get(one.id)
        # A second deletion may only shorten.
        if until is None or until > now + seconds + 1:
            steps.append(Kill(one.id, one.name, seconds, "Stopping container"))
    if observed.running:
        return Plan(tuple(steps))
    steps += [StopSandbox(box.id) for box in observed.sandboxes if box.ready]
    if not pod.metadata.HasField("deletion_timestamp"):
        return Plan(tuple(steps))
    return Plan((*steps, Finish()))


def _settle(pod: pod_pb2.Pod, observed: Observed) -> Plan:
    """All has ended: the sandbox goes, the ended containers stay for their logs."""
    return Plan(tuple(StopSandbox(box.id) for box in observed.sandboxes if box.ready))


def _new_sandbox(observed: Observed, memory: Memory, now: float) -> Plan:
    steps: list[Step] = [
        Kill(one.id, one.name, 2, "Its sandbox has ended")
        for one in observed.running
        if one.id not in memory.killing
    ]
    if observed.running:
        return Plan(tuple(steps))
    trouble = memory.problems.get("")
    if trouble is not None and trouble.again_at > now:
        return Plan((), trouble.again_at)
    attempt = max((box.attempt for box in observed.sandboxes), default=-1) + 1
    return Plan((RunSandbox(attempt),))


def _leftovers(observed: Observed) -> list[Step]:
    """Old sandboxes, and instances older than the one before the newest."""
    current = observed.sandboxes[0].id
    steps: list[Step] = []
    for box in observed.sandboxes[1:]:
        if box.ready:
            steps.append(StopSandbox(box.id))
        elif not any(one.sandbox == box.id for one in observed.containers):
            steps.append(RemoveSandbox(box.id))
    seen: dict[str, int] = {}
    for one in observed.containers:
        seen[one.name] = seen.get(one.name, 0) + 1
        unborn = one.state == "created" and (seen[one.name] > 1 or one.sandbox != current)
        if unborn or (one.state == "exited" and seen[one.name] > 2):
            steps.append(RemoveContainer(one.id))
    return steps


def _due(pod: pod_pb2.Pod, observed: Observed) -> list[container_pb2.Container]:
    """Containers that should run now: init containers one by one, then all the others.

    A sidecar holds up the next one only until it runs, and is kept running from then on.
    """
    sidecars = []
    for container in pod.spec.init_containers:
        newest = observed.newest(container.name)
        if is_sidecar(container):
            sidecars.append(container)
            if newest is None or (newest.state != "running" and newest.attempt == 0):
                return sidecars
        elif newest is None or newest.state != "exited" or newest.exit_code != 0:
            return [*sidecars, container]
    return [*sidecars, *pod.spec.containers]


def _container(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    observed: Observed,
    memory: Memory,
    now: float,
) -> tuple[Step | None, float | None]:
    current = observed.sandboxes[0].id
    newest = observed.newest(container.name)
    if newest is not None and newest.state == "running":
        if newest.sandbox != current and newest.id not in memory.killing:
            return Kill(newest.id, newest.name, 2, "Its sandbox has ended"), None
        if newest.hash and newest.hash != fingerprint(container):
            if newest.id in memory.killing:
                return None, None
            why = f"Container {container.name} definition changed, will be restarted"
            return Kill(newest.id, newest.name, grace(pod), why), None
        return None, None
    delay, at = 0.0, now
    if newest is not None and newest.state == "exited":
        changed = newest.hash != "" and newest.hash != fingerprint(container)
        if not restarts(policy_of(pod, container), newest.exit_code) and not changed:
            return None, None
        if not changed:
            delay = next_delay(newest)
            at = newest.finished_at + delay
    if newest is not None and newest.state in ("created", "unknown"):
        # Made but never started: a kubelet died in between.
        return RemoveContainer(newest.id), now
    if (trouble := memory.problems.get(container.name)) is not None:
        at = max(at, trouble.again_at)
    if at > now:
        return None, at
    attempt = 0 if newest is None else newest.attempt + 1
    return Start(container.name, attempt, current, delay), None


def waiting(
    pod: pod_pb2.Pod,
    name: str,
    observed: Observed,
    problems: Mapping[str, Problem],
    now: float,
) -> tuple[str, str]:
    """Reason and message of a container that does not run but will."""
    trouble = problems.get(name)
    if trouble is not None:
        return trouble.reason, trouble.message
    newest = observed.newest(name)
    if newest is not None and newest.state == "exited":
        delay = next_delay(newest)
        if delay and newest.finished_at + delay > now:
            subject = f"restarting failed container={name} pod={pod.metadata.name}"
            return (
                "CrashLoopBackOff",
                f"back-off {delay:.0f}s {subject}_{pod.metadata.namespace}({pod.metadata.uid})",
            )
    if pod.spec.init_containers and name in {one.name for one in pod.spec.containers}:
        return "PodInitializing", ""
    return "ContainerCreating", ""
