"""The kubelet's heart: from what is wanted and what is there to what to do next.

`plan(pod, observed, memory, now)` is pure and total: it may be asked at any moment, after any
crash, and answers the next steps and when to ask again. What it needs to know it reads off the
runtime; `Memory` is what may be lost: failures to get images and to start, kills under way, what
hooks and probes found, and moments of the steady clock, which a restarted kubelet works out anew.

`now` and all moments here are the steady clock's: nothing is restarted sooner or later because
somebody sets the machine's clock.

Restarts: at once the first time, then after 10, 20, 40 … 300 s; after ten minutes of running it
begins anew. The wait before a start is noted on the container, so the next follows from it.

A new sandbox begins with the init containers again. Without restarts (Never) a pod whose sandbox
has ended is over.
"""

import hashlib
import math
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import health
from kcore.kubelet.observed import Container, Observed

FIRST_DELAY_SECONDS = 10.0
MOST_DELAY_SECONDS = 300.0
STEADY_SECONDS = 600.0
DEFAULT_GRACE_SECONDS = 30
FINAL = ("Succeeded", "Failed")
PULLS = ("ErrImagePull", "ImagePullBackOff")
CRASH_LOOP = "CrashLoopBackOff"
# What is left to a container whose turn to end comes late, or whose pod is forgotten by force.
LEAST_GRACE_SECONDS = 2


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
class Begin:
    """Run the postStart hook of an instance; until it is through, the next container waits."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """The preStop hook, stop signal, then SIGKILL when the grace is over."""

    id: str
    name: str
    grace_seconds: int
    why: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove an instance that never ran, or that nobody asks about any more."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing of the pod runs: say so, take away its volumes and logs, let its object go."""


Step = RunSandbox | StopSandbox | RemoveSandbox | Start | Begin | Kill | RemoveContainer | Finish


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
    # Container id -> when it ended.
    ended: dict[str, float] = field(default_factory=dict)
    # Container name, or "" -> an attempt that the runtime refuses to make, as it has one.
    taken: dict[str, int] = field(default_factory=dict)
    # Container id -> what hooks and probes found, where that is anything.
    healths: dict[str, health.Health] = field(default_factory=dict)
    # Names of containers whose image is being pulled.
    pulling: set[str] = field(default_factory=set)
    # The pod ends: when its grace is over.
    ends_at: float | None = None
    # When the pod has been active as long as it may.
    deadline_at: float | None = None
    # Set once: the pod has failed as a whole ("DeadlineExceeded", "Evicted", …).
    failed: tuple[str, str] | None = None

    def health_of(self, spec: container_pb2.Container, container_id: str) -> health.Health:
        """An instance's health so far."""
        return self.healths.get(container_id) or health.fresh(spec)


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
        return _settle(pod, observed, memory, now)
    box = observed.sandboxes[0] if observed.sandboxes else None
    if box is None or not box.ready:
        made = _new_sandbox(observed, memory, now)
    else:
        made = _containers(pod, observed, memory, now)
    again = [at for at in (made.again_at, memory.deadline_at) if at is not None]
    return Plan(made.steps, min(again, default=None))


def ending(pod: pod_pb2.Pod, memory: Memory) -> bool:
    """Whether everything of the pod has to end."""
    return (
        pod.metadata.HasField("deletion_timestamp")
        or memory.failed is not None
        or pod.status.phase in FINAL
    )


def over(pod: pod_pb2.Pod, observed: Observed) -> bool:
    """Whether every container has ended and none will start again. Sidecars do not count."""
    boxes = observed.sandboxes
    if pod.spec.restart_policy == "Never" and boxes and not boxes[0].ready:
        states = {one.state for one in observed.containers}
        if "exited" in states and "running" not in states:
            return True
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            continue
        newest = observed.newest(container.name)
        if newest is None or newest.state != "exited":
            return False
        if newest.exit_code != 0:
            return not starts_again(pod, container, newest)
    for container in pod.spec.containers:
        newest = observed.newest(container.name)
        if newest is None or newest.state != "exited":
            return False
        if starts_again(pod, container, newest):
            return False
    return True


def starts_again(pod: pod_pb2.Pod, container: container_pb2.Container, ended: Container) -> bool:
    """Whether a container that ended so starts again, in a pod that goes on."""
    return has_changed(container, ended) or restarts(policy_of(pod, container), ended.exit_code)


def has_changed(container: container_pb2.Container, one: Container) -> bool:
    """Whether this instance is not of the container as it is wanted now."""
    return one.hash != "" and one.hash != fingerprint(container)


def every(pod: pod_pb2.Pod) -> tuple[container_pb2.Container, ...]:
    """All containers of a pod."""
    return (*pod.spec.init_containers, *pod.spec.containers, *ephemeral(pod))


def ephemeral(pod: pod_pb2.Pod) -> tuple[container_pb2.Container, ...]:
    """Those that were added to look at the others: started once, at once, and never again."""
    return tuple(one.ephemeral_container_common for one in pod.spec.ephemeral_containers)


def is_ephemeral(pod: pod_pb2.Pod, container: container_pb2.Container) -> bool:
    """Whether it was added to look at the others."""
    return any(one.name == container.name for one in ephemeral(pod))


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
    if is_ephemeral(pod, container):
        return "Never"
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


def problem(
    before: Problem | None,
    reason: str,
    message: str,
    now: float,
    *,
    first_seconds: float = FIRST_DELAY_SECONDS,
    most_seconds: float = MOST_DELAY_SECONDS,
) -> Problem:
    """What to remember of a failure to start: waits twice as long each time it is the same."""
    delay = first_seconds
    if before is not None and (before.reason in PULLS) == (reason in PULLS):
        delay = min(most_seconds, max(first_seconds, before.delay * 2))
    return Problem(reason, message, now + delay, delay)


def fingerprint(container: container_pb2.Container) -> str:
    """Changes with what cannot change under a running container: its image."""
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:16]


def grace(pod: pod_pb2.Pod) -> int:
    """Seconds that the pod's containers are given to end."""
    own = DEFAULT_GRACE_SECONDS
    if pod.spec.HasField("termination_grace_period_seconds"):
        own = pod.spec.termination_grace_period_seconds
        own = 1 if own < 0 else own
    if not pod.metadata.HasField("deletion_grace_period_seconds"):
        return own
    # An object may be removed by force at once; its containers still hear of it.
    return max(pod.metadata.deletion_grace_period_seconds, min(own, LEAST_GRACE_SECONDS))


def _end(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> Plan:
    if observed.running:
        return Plan(_kills(pod, observed, memory, now))
    stops = tuple(StopSandbox(box.id) for box in observed.sandboxes if box.ready)
    if not pod.metadata.HasField("deletion_timestamp"):
        return Plan(stops)
    return Plan((*stops, Finish()))


def _settle(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> Plan:
    """All has ended: sidecars and sandbox go, the ended containers stay for their logs."""
    if observed.running:
        return Plan(_kills(pod, observed, memory, now))
    return Plan(tuple(StopSandbox(box.id) for box in observed.sandboxes if box.ready))


def _kills(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> tuple[Step, ...]:
    """Ends what runs: sidecars after the others, in reverse order, all within one grace."""
    seconds = grace(pod)
    if memory.ends_at is not None:
        left = max(LEAST_GRACE_SECONDS, math.ceil(memory.ends_at - now))
        seconds = min(seconds, left)
    sidecars = [one.name for one in pod.spec.init_containers if is_sidecar(one)]
    due = [one for one in observed.running if one.name not in sidecars]
    while not due:
        last = sidecars.pop()
        due = [one for one in observed.running if one.name == last]
    # A kill that is under way is only ever made shorter.
    return tuple(
        Kill(one.id, one.name, seconds, f"Stopping container {one.name}")
        for one in due
        if memory.killing.get(one.id, math.inf) > now + seconds + 1
    )


def _new_sandbox(observed: Observed, memory: Memory, now: float) -> Plan:
    if observed.running:
        return Plan(
            tuple(
                Kill(one.id, one.name, LEAST_GRACE_SECONDS, "Its sandbox has ended")
                for one in observed.running
                if one.id not in memory.killing
            )
        )
    trouble = memory.problems.get("")
    if trouble is not None and trouble.again_at > now:
        return Plan((), trouble.again_at)
    known = max((box.attempt for box in observed.sandboxes), default=-1)
    return Plan((RunSandbox(max(known, memory.taken.get("", -1)) + 1),))


def _containers(pod: pod_pb2.Pod, observed: Observed, memory: Memory, now: float) -> Plan:
    steps = _leftovers(observed)
    again: list[float] = []
    for container in (*ephemeral(pod), *_due(pod, observed, memory)):
        step, at = _container(pod, container, observed, memory, now)
        if step is not None:
            steps.append(step)
        if at is not None:
            again.append(at)
        if container.lifecycle.HasField("post_start") and (
            isinstance(step, Start | Begin) or container.name in memory.pulling
        ):
            break
    return Plan(tuple(steps), min(again, default=None))


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
            steps.append(RemoveContainer(one.id, one.name))
    return steps


def _due(pod: pod_pb2.Pod, observed: Observed, memory: Memory) -> list[container_pb2.Container]:
    """Containers that should run now: init containers one by one, then all the others.

    A sidecar holds up the next one only until it has started, and is kept running from then on. An
    init container that has a later one in the same sandbox has done its part, whatever is left.
    """
    current = observed.sandboxes[0].id
    inits = pod.spec.init_containers
    here = {one.name for one in observed.containers if one.sandbox == current}
    reached = max((index for index, one in enumerate(inits) if one.name in here), default=0)
    if any(one.name in here for one in pod.spec.containers):
        reached = len(inits)
    found = []
    for index, container in enumerate(inits):
        newest = observed.newest(container.name)
        state = newest.state if newest is not None and newest.sandbox == current else ""
        if is_sidecar(container):
            found.append(container)
            if index >= reached and not (
                newest is not None
                and state == "running"
                and memory.health_of(container, newest.id).started
            ):
                return found
        elif index >= reached and not (
            newest is not None and state == "exited" and newest.exit_code == 0
        ):
            return [*found, container]
    return [*found, *pod.spec.containers]


def _container(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    observed: Observed,
    memory: Memory,
    now: float,
) -> tuple[Step | None, float | None]:
    current = observed.sandboxes[0].id
    newest = observed.newest(container.name)
    delay, at = 0.0, now
    if newest is None:
        if is_ephemeral(pod, container) and _last_attempt(pod, container.name) >= 0:
            # It has run, and the runtime has forgotten it.
            return None, None
        return _start(pod, container, observed, memory, now, delay, at)
    if newest.state == "running":
        if newest.id in memory.killing:
            return None, None
        if newest.sandbox != current:
            return Kill(newest.id, newest.name, LEAST_GRACE_SECONDS, "Its sandbox has ended"), None
        if has_changed(container, newest):
            why = f"Container {container.name} definition changed, will be restarted"
            return Kill(newest.id, newest.name, grace(pod), why), None
        found = memory.health_of(container, newest.id)
        if found.sentence is not None:
            return _execute(pod, container, newest, found.sentence), None
        if not found.begun:
            return Begin(newest.id, newest.name), None
        return None, None
    if newest.state != "exited":
        # Made but never started, or lost: a kubelet or its runtime died in between.
        return RemoveContainer(newest.id, newest.name), None
    if starts_again(pod, container, newest):
        if not has_changed(container, newest):
            delay = next_delay(newest)
            at = memory.ended.get(newest.id, now) + delay
    elif newest.sandbox == current or container.name not in {
        one.name for one in pod.spec.init_containers
    }:
        return None, None
    return _start(pod, container, observed, memory, now, delay, at)


def _execute(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    newest: Container,
    sentence: health.Sentence,
) -> Kill:
    seconds = grace(pod) if sentence.grace_seconds is None else sentence.grace_seconds
    again = "" if policy_of(pod, container) == "Never" else ", will be restarted"
    return Kill(newest.id, newest.name, seconds, sentence.why + again)


def _start(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    observed: Observed,
    memory: Memory,
    now: float,
    delay: float,
    at: float,
) -> tuple[Step | None, float | None]:
    if container.name in memory.pulling:
        return None, None
    if (trouble := memory.problems.get(container.name)) is not None:
        at = max(at, trouble.again_at)
    if at > now:
        return None, at
    newest = observed.newest(container.name)
    known = newest.attempt if newest is not None else _last_attempt(pod, container.name)
    attempt = max(known, memory.taken.get(container.name, -1)) + 1
    return Start(container.name, attempt, observed.sandboxes[0].id, delay), None


def _last_attempt(pod: pod_pb2.Pod, name: str) -> int:
    """Of a container that the runtime has forgotten: what the API remembers."""
    told = pod.status
    for one in (
        *told.init_container_statuses,
        *told.container_statuses,
        *told.ephemeral_container_statuses,
    ):
        if one.name == name and one.container_id:
            return int(one.restart_count)
    return -1


def waiting(
    pod: pod_pb2.Pod, name: str, observed: Observed, memory: Memory, now: float
) -> tuple[str, str]:
    """Reason and message of a container that does not run but will."""
    trouble = memory.problems.get(name)
    if trouble is not None:
        return trouble.reason, trouble.message
    newest = observed.newest(name)
    if newest is not None and newest.state == "exited":
        delay = next_delay(newest)
        if delay and memory.ended.get(newest.id, now) + delay > now:
            subject = f"restarting failed container={name} pod={pod.metadata.name}"
            return (
                CRASH_LOOP,
                f"back-off {delay:.0f}s {subject}_{pod.metadata.namespace}({pod.metadata.uid})",
            )
    if pod.spec.init_containers:
        return "PodInitializing", ""
    return "ContainerCreating", ""
