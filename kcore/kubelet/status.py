"""A pod's status, from its spec and what the runtime has. Pure.

The kubelet owns all of it but the conditions and fields of others (the scheduler's PodScheduled,
readiness gates, qosClass), which are kept as the API has them. What the kubelet said before it goes
on from, even if the API does not have it yet: a condition's transition time moves only when its
status does, restarts are never counted down, a phase never leaves Succeeded or Failed, and of a
container that the runtime has forgotten stays what was known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kcore_api.kcore.core.v1 import container_pb2, container_status_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.kubelet import sync
from kcore.kubelet.observed import Container, Observed

ContainerStatus = container_status_pb2.ContainerStatus

OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status says of the node. `runtime` is the prefix of container ids: "containerd"."""

    addresses: Sequence[str]
    runtime: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by the clock on the wall and by the steady one."""

    wall: float
    steady: float


def make(
    pod: pod_pb2.Pod,
    observed: Observed,
    memory: sync.Memory,
    around: Surroundings,
    now: Moment,
    said: pod_pb2.PodStatus | None = None,
    *,
    last: bool = False,
) -> pod_pb2.PodStatus:
    """The status as it should be. `said`: what the kubelet said last, if anything.

    `last`: nothing of it will ever run again, so that whoever waits for its end learns of one.
    """
    made = _before(pod, said)
    known = {
        one.name: one
        for one in (
            *made.init_container_statuses,
            *made.container_statuses,
            *made.ephemeral_container_statuses,
        )
    }
    made.observed_generation = pod.metadata.generation
    if not made.HasField("start_time"):
        made.start_time.seconds = int(now.wall)
    _addresses(pod, made, observed, around)
    subject = _Subject(pod, observed, memory, around, known, now.steady)
    init = [_container(subject, one) for one in pod.spec.init_containers]
    main = [_container(subject, one) for one in pod.spec.containers]
    extra = [_container(subject, one) for one in sync.ephemeral(pod)]
    for one in extra:
        # Nobody waits for it.
        one.ready = False
    for field, found in (
        ("init_container_statuses", init),
        ("container_statuses", main),
        ("ephemeral_container_statuses", extra),
    ):
        made.ClearField(field)
        getattr(made, field).extend(found)
    if memory.failed is not None and made.phase not in sync.FINAL:
        made.reason, made.message = memory.failed
        if not made.message:
            made.ClearField("message")
    made.phase = phase(pod, observed, memory, made, last=last)
    _conditions(pod, made, observed, now.wall)
    return made


def phase(
    pod: pod_pb2.Pod,
    observed: Observed,
    memory: sync.Memory,
    made: pod_pb2.PodStatus,
    *,
    last: bool = False,
) -> str:
    """Where the pod is in its life. `made`: its status so far, with the phase it was in."""
    if made.phase in sync.FINAL:
        return str(made.phase)
    ending = sync.ending(pod, memory)
    if not observed.running:
        if memory.failed is not None:
            return "Failed"
        if sync.over(pod, observed) or (ending and (observed.containers or last)):
            # Ended by itself or by its deletion: how, is what the containers said.
            newest = [observed.newest(one.name) for one in pod.spec.containers]
            ended_well = all(
                one is not None and one.state == "exited" and one.exit_code == 0 for one in newest
            )
            return "Succeeded" if ended_well else "Failed"
    if ending:
        return str(made.phase or "Pending")
    started = all(
        one.state.HasField("running")
        or one.state.HasField("terminated")
        or one.last_state.HasField("terminated")
        for one in made.container_statuses
    )
    return "Running" if started and made.container_statuses else "Pending"


@dataclass(frozen=True, slots=True)
class _Subject:
    pod: pod_pb2.Pod
    observed: Observed
    memory: sync.Memory
    around: Surroundings
    # What was said of its containers before, by name.
    known: Mapping[str, ContainerStatus]
    now: float


def _before(pod: pod_pb2.Pod, said: pod_pb2.PodStatus | None) -> pod_pb2.PodStatus:
    """What to go on from: our own last word, and what is others' to say."""
    made = pod_pb2.PodStatus()
    made.CopyFrom(pod.status)
    if said is None:
        return made
    final = made.phase if made.phase in sync.FINAL else said.phase
    others = [one for one in made.conditions if one.type not in OWNED]
    made.CopyFrom(said)
    made.phase = final
    ours = [one for one in said.conditions if one.type in OWNED]
    made.ClearField("conditions")
    made.conditions.extend([*ours, *others])
    for field in ("qos_class", "nominated_node_name"):
        made.ClearField(field)
        if pod.status.HasField(field):
            setattr(made, field, getattr(pod.status, field))
    if not said.reason:
        made.reason, made.message = pod.status.reason, pod.status.message
    for field in ("reason", "message"):
        if not getattr(made, field):
            made.ClearField(field)
    return made


def _addresses(
    pod: pod_pb2.Pod, made: pod_pb2.PodStatus, observed: Observed, around: Surroundings
) -> None:
    made.ClearField("host_ips")
    made.host_ip = around.addresses[0] if around.addresses else ""
    made.host_ips.extend(pod_pb2.HostIP(ip=one) for one in around.addresses)
    box = next((one for one in observed.sandboxes if one.ready), None)
    if box is None:
        return
    found = around.addresses if pod.spec.host_network else box.addresses
    if found:
        made.ClearField("pod_ips")
        made.pod_ip = found[0]
        made.pod_ips.extend(pod_pb2.PodIP(ip=one) for one in found)


def _container(subject: _Subject, spec: container_pb2.Container) -> ContainerStatus:
    pod, observed, memory = subject.pod, subject.observed, subject.memory
    newest = observed.newest(spec.name)
    known = subject.known.get(spec.name)
    made = ContainerStatus(
        name=spec.name,
        image=spec.image,
        image_id="",
        ready=False,
        started=False,
        restart_count=known.restart_count if known is not None else 0,
    )
    if newest is None:
        return _forgotten(subject, spec, made)
    made.restart_count = max(made.restart_count, newest.attempt)
    found = memory.health_of(spec, newest.id)
    if newest.state == "created" or (newest.state == "running" and not found.begun):
        # It has not been there yet.
        _wait(made.state, *sync.waiting(pod, spec.name, observed, memory, subject.now))
        if (earlier := observed.before(spec.name)) is not None and earlier.state == "exited":
            made.container_id = f"{subject.around.runtime}://{earlier.id}"
            _ended(made.last_state, earlier, subject.around)
        return made
    made.container_id = f"{subject.around.runtime}://{newest.id}"
    made.image_id = newest.image_id
    before = observed.before(spec.name)
    if before is not None and before.state == "exited":
        _ended(made.last_state, before, subject.around)
    elif (
        known is not None
        and known.container_id == made.container_id
        and known.HasField("last_state")
    ):
        made.last_state.CopyFrom(known.last_state)
    if newest.state == "running":
        made.state.running.started_at.seconds = int(newest.started_at or newest.created_at)
        made.started = found.started
        made.ready = found.ready and not _goes_before(pod, spec)
        return made
    if newest.state == "exited":
        again = not sync.ending(pod, memory) and sync.starts_again(pod, spec, newest)
        reason, message = sync.waiting(pod, spec.name, observed, memory, subject.now)
        # Between the end and a restart at once there is nothing to wait for: show the end.
        if again and reason not in ("ContainerCreating", "PodInitializing"):
            _wait(made.state, reason, message)
            _ended(made.last_state, newest, subject.around)
            return made
        _ended(made.state, newest, subject.around)
        made.ready = _goes_before(pod, spec) and newest.exit_code == 0
        return made
    reason, message = sync.waiting(pod, spec.name, observed, memory, subject.now)
    _wait(made.state, reason, message)
    return made


def _goes_before(pod: pod_pb2.Pod, spec: container_pb2.Container) -> bool:
    """Whether it is an init container that ends before the others start."""
    return not sync.is_sidecar(spec) and any(
        one.name == spec.name for one in pod.spec.init_containers
    )


def _forgotten(
    subject: _Subject, spec: container_pb2.Container, made: ContainerStatus
) -> ContainerStatus:
    """Of a container that the runtime does not know: not yet, or not any more."""
    known, pod = subject.known.get(spec.name), subject.pod
    was_there = known is not None and bool(known.container_id)
    if not sync.ending(pod, subject.memory):
        if known is not None and was_there:
            last = known.state if known.state.HasField("terminated") else known.last_state
            if last.HasField("terminated"):
                made.last_state.CopyFrom(last)
        reason, message = sync.waiting(
            pod, spec.name, subject.observed, subject.memory, subject.now
        )
        _wait(made.state, reason, message)
        return made
    if known is None:
        return made
    made.CopyFrom(known)
    made.started = False
    if made.state.HasField("running"):
        made.ready = False
        made.state.ClearField("running")
        lost = made.state.terminated
        lost.exit_code, lost.reason = 137, "ContainerStatusUnknown"
        lost.message = "The container could not be located when the pod was terminated"
        lost.container_id = made.container_id
    return made


def _wait(state: container_status_pb2.ContainerState, reason: str, message: str) -> None:
    state.waiting.reason = reason
    if message:
        state.waiting.message = message


def _ended(
    state: container_status_pb2.ContainerState, one: Container, around: Surroundings
) -> None:
    state.terminated.exit_code = one.exit_code
    state.terminated.reason = one.reason or ("Completed" if one.exit_code == 0 else "Error")
    if one.message:
        state.terminated.message = one.message
    state.terminated.started_at.seconds = int(one.started_at or one.created_at)
    state.terminated.finished_at.seconds = int(one.finished_at)
    state.terminated.container_id = f"{around.runtime}://{one.id}"


def _conditions(pod: pod_pb2.Pod, made: pod_pb2.PodStatus, observed: Observed, now: float) -> None:
    finished = made.phase in sync.FINAL
    done = "PodCompleted" if made.phase == "Succeeded" else "PodFailed"
    box = any(one.ready and (one.addresses or pod.spec.host_network) for one in observed.sandboxes)
    _set(made, "PodReadyToStartContainers", box, ("", ""), now)

    late = _uninitialized(pod, made)
    said = f"containers with incomplete status: [{' '.join(late)}]" if late else ""
    if made.phase == "Succeeded":
        _set(made, "Initialized", True, (done, ""), now)
    else:
        _set(made, "Initialized", not late, ("ContainersNotInitialized" if late else "", said), now)

    sidecars = {one.name for one in pod.spec.init_containers if sync.is_sidecar(one)}
    lasting = [
        *(one for one in made.init_container_statuses if one.name in sidecars),
        *made.container_statuses,
    ]
    unready = [one.name for one in lasting if not one.ready]
    why = ("", "")
    if finished:
        why = (done, "")
    elif unready:
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    ready = not finished and not unready
    gates = _shut_gates(pod, made)
    if ready and gates:
        _set(made, "Ready", False, ("ReadinessGatesNotReady", ", ".join(gates)), now)
    else:
        _set(made, "Ready", ready, why, now)
    _set(made, "ContainersReady", ready, why, now)


def _uninitialized(pod: pod_pb2.Pod, made: pod_pb2.PodStatus) -> list[str]:
    """Init containers whose part is still to come; none once one of the others has started."""
    if any(one.container_id for one in made.container_statuses):
        return []
    sidecars = [one.name for one in pod.spec.init_containers if sync.is_sidecar(one)]
    return [
        one.name
        for one in made.init_container_statuses
        if not (one.started if one.name in sidecars else one.ready)
    ]


def _shut_gates(pod: pod_pb2.Pod, made: pod_pb2.PodStatus) -> list[str]:
    """What the readiness gates that are not open say."""
    found = []
    for gate in pod.spec.readiness_gates:
        kind = gate.condition_type
        condition = next((one for one in made.conditions if one.type == kind), None)
        if condition is None:
            said = f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            found.append(said)
        elif condition.status != "True":
            said = f'the status of pod readiness gate "{kind}" is not "True", but'
            found.append(f"{said} {condition.status}")
    return found


def _set(
    made: pod_pb2.PodStatus, kind: str, holds: bool, said: tuple[str, str], now: float
) -> None:
    status = "True" if holds else "False"
    for condition in made.conditions:
        if condition.type == kind:
            break
    else:
        condition = made.conditions.add(type=kind)
    if condition.status != status:
        condition.status = status
        condition.last_transition_time.CopyFrom(meta_pb2.Time(seconds=int(now)))
    for field, value in zip(("reason", "message"), said, strict=True):
        if value:
            setattr(condition, field, value)
        else:
            condition.ClearField(field)
