"""A pod's status, from its spec and what the runtime has. Pure.

The kubelet owns all of it but the conditions and fields of others (the scheduler's PodScheduled,
readiness gates, qosClass), which are kept. A condition's transition time moves only when its
status does. A phase never leaves Succeeded or Failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kcore_api.kcore.core.v1 import container_pb2, container_status_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.kubelet import sync
from kcore.kubelet.observed import Container, Observed

OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status says of the node. `runtime` is the prefix of container ids: "containerd"."""

    addresses: Sequence[str]
    runtime: str


def make(
    pod: pod_pb2.Pod,
    observed: Observed,
    memory: sync.Memory,
    around: Surroundings,
    now: float,
) -> pod_pb2.PodStatus:
    """The status as it should be."""
    old = pod.status
    made = pod_pb2.PodStatus()
    made.CopyFrom(old)
    made.observed_generation = pod.metadata.generation
    if not made.HasField("start_time"):
        made.start_time.seconds = int(now)
    _addresses(pod, made, observed, around)
    init = [_container(pod, one, observed, memory, around, now) for one in pod.spec.init_containers]
    main = [_container(pod, one, observed, memory, around, now) for one in pod.spec.containers]
    for field, found in (("init_container_statuses", init), ("container_statuses", main)):
        made.ClearField(field)
        getattr(made, field).extend(found)
    made.phase = phase(pod, observed, memory, made)
    if memory.failed is not None and old.phase not in ("Succeeded", "Failed"):
        made.reason, made.message = memory.failed
    _conditions(pod, made, observed, now)
    return made


def phase(
    pod: pod_pb2.Pod, observed: Observed, memory: sync.Memory, made: pod_pb2.PodStatus
) -> str:
    """Where the pod is in its life."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return str(pod.status.phase)
    if memory.failed is not None:
        return "Failed" if not observed.running else str(pod.status.phase or "Pending")
    if sync.over(pod, observed):
        last = [observed.newest(one.name) for one in pod.spec.containers]
        return "Succeeded" if all(one and one.exit_code == 0 for one in last) else "Failed"
    if pod.metadata.HasField("deletion_timestamp") and observed.containers and not observed.running:
        # Ended by its deletion: how, is what the containers said.
        last = [observed.newest(one.name) for one in pod.spec.containers]
        return "Succeeded" if all(one and one.exit_code == 0 for one in last) else "Failed"
    started = all(
        one.state.HasField("running")
        or one.state.HasField("terminated")
        or one.last_state.HasField("terminated")
        for one in made.container_statuses
    )
    return "Running" if started and made.container_statuses else "Pending"


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


def _container(
    pod: pod_pb2.Pod,
    spec: container_pb2.Container,
    observed: Observed,
    memory: sync.Memory,
    around: Surroundings,
    now: float,
) -> container_status_pb2.ContainerStatus:
    newest = observed.newest(spec.name)
    before_others = not sync.is_sidecar(spec) and any(
        one.name == spec.name for one in pod.spec.init_containers
    )
    made = container_status_pb2.ContainerStatus(
        name=spec.name, image=spec.image, image_id="", ready=False, started=False, restart_count=0
    )
    if newest is None:
        if pod.status.phase not in ("Succeeded", "Failed"):
            reason, message = sync.waiting(pod, spec.name, observed, memory.problems, now)
            _wait(made.state, reason, message)
        return made
    made.restart_count = newest.attempt
    made.container_id = f"{around.runtime}://{newest.id}"
    made.image_id = newest.image_id
    before = observed.before(spec.name)
    if newest.state == "running":
        made.state.running.started_at.seconds = int(newest.started_at or newest.created_at)
        made.started = True
        made.ready = not before_others
        if before is not None and before.state == "exited":
            _ended(made.last_state, before, around)
        return made
    if newest.state == "exited":
        again = sync.restarts(sync.policy_of(pod, spec), newest.exit_code) and not sync.ending(
            pod, memory
        )
        if again:
            reason, message = sync.waiting(pod, spec.name, observed, memory.problems, now)
            # Between the end and a restart at once there is nothing to wait for: show the end.
            if reason in ("ContainerCreating", "PodInitializing"):
                _ended(made.state, newest, around)
                if before is not None and before.state == "exited":
                    _ended(made.last_state, before, around)
                return made
            _wait(made.state, reason, message)
            _ended(made.last_state, newest, around)
            return made
        _ended(made.state, newest, around)
        made.ready = before_others and newest.exit_code == 0
        if before is not None and before.state == "exited":
            _ended(made.last_state, before, around)
        return made
    reason, message = sync.waiting(pod, spec.name, observed, memory.problems, now)
    _wait(made.state, reason, message)
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
    unready = [one.name for one in made.container_statuses if not one.ready]
    uninitialized = [one.name for one in made.init_container_statuses if not one.ready]
    box = any(one.ready and (one.addresses or pod.spec.host_network) for one in observed.sandboxes)
    finished = made.phase in ("Succeeded", "Failed")
    done = "PodCompleted" if made.phase == "Succeeded" else "PodFailed"
    containers_ready = not finished and not unready
    reason, message = "", ""
    if finished:
        reason = done
    elif unready:
        reason = "ContainersNotReady"
        message = f"containers with unready status: [{' '.join(unready)}]"
    gates = [
        gate.condition_type
        for gate in pod.spec.readiness_gates
        if not any(c.type == gate.condition_type and c.status == "True" for c in made.conditions)
    ]
    ready = containers_ready and not gates
    gate_said = (
        (reason, message)
        if not containers_ready or not gates
        else ("ReadinessGatesNotReady", f"the status of pod readiness gate {gates} is not True")
    )
    initialized = not uninitialized
    init_said = (
        ("", "")
        if initialized
        else (
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(uninitialized)}]",
        )
    )
    _set(made, "PodReadyToStartContainers", box, ("", ""), now)
    _set(made, "Initialized", initialized, init_said, now)
    _set(made, "ContainersReady", containers_ready, (reason, message), now)
    _set(made, "Ready", ready, gate_said, now)


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
