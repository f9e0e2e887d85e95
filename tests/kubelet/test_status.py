"""What people see of a pod, row by row; and laws of statuses."""

from typing import Any

import pytest
from hypothesis import given, settings
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import status, sync
from kcore.kubelet.health import Health
from kcore.kubelet.observed import NOTHING, Observed
from tests import budget
from tests.kubelet.scene import (
    AROUND,
    MOMENT,
    NOW,
    WALL,
    hooked,
    pod,
    remember,
    said,
    scenes,
    see,
)

# What it is about | the pod | what the runtime has | what is remembered | what people see:
# phase and reason; each container (+ ready, ! started, restarts, now, last); conditions that hold.
Row = tuple[str, Any, str, dict[str, Any], list[str]]

GOING: list[Row] = [
    (
        "just bound",
        pod(),
        "",
        {},
        ["Pending", "a x0 ContainerCreating", "Init"],
    ),
    (
        "it has an address",
        pod(),
        "s0+",
        {},
        ["Pending", "a x0 ContainerCreating", "Box Init"],
    ),
    (
        "all runs",
        pod("a b"),
        "s0+ a0=running b0=running",
        {},
        ["Running", "a+! x0 running", "b+! x0 running", "Box Init Ready Cont"],
    ),
    (
        "one waits for its image",
        pod("a b"),
        "s0+ a0=running",
        {"problem_b": ("ErrImagePull", 7)},
        ["Pending", "a+! x0 running", "b x0 ErrImagePull", "Box Init"],
    ),
    (
        "its hook is not through",
        hooked(pod()),
        "s0+ a0=running",
        {},
        ["Pending", "a x0 ContainerCreating", "Box Init"],
    ),
    (
        "it has not started",
        pod(),
        "s0+ a0=running",
        {"healths": {"a0": Health(started=False, ready=False)}},
        ["Running", "a x0 running", "Box Init"],
    ),
    (
        "it is not ready",
        pod(),
        "s0+ a0=running",
        {"healths": {"a0": Health(ready=False)}},
        ["Running", "a! x0 running", "Box Init"],
    ),
    (
        "a sidecar has not started",
        pod(init="*s"),
        "s0+ s0=running",
        {"healths": {"s0": Health(started=False, ready=False)}},
        ["Pending", "s x0 running", "a x0 PodInitializing", "Box"],
    ),
    (
        "somebody looks at it",
        pod(extra="x"),
        "s0+ a0=running x0=running",
        {},
        ["Running", "a+! x0 running", "x! x0 running", "Box Init Ready Cont"],
    ),
    (
        "… or has looked",
        pod(extra="x"),
        "s0+ a0=running x0=exited:1",
        {},
        ["Running", "a+! x0 running", "x x0 Error:1", "Box Init Ready Cont"],
    ),
    (
        "something is missing",
        pod(),
        "s0+",
        {"problem_a": ("CreateContainerConfigError", 7)},
        ["Pending", "a x0 CreateContainerConfigError", "Box Init"],
    ),
    (
        "it could not be started",
        pod(),
        "s0+ a0=exited:128,reason=StartError",
        {"problem_a": ("RunContainerError", 7)},
        ["Running", "a x0 RunContainerError was StartError:128", "Box Init"],
    ),
    (
        "it ended and starts at once",
        pod(),
        "s0+ a0=exited:1",
        {},
        ["Running", "a x0 Error:1", "Box Init"],
    ),
    (
        "it runs again",
        pod(),
        "s0+ a0=exited:1 a1=running",
        {},
        ["Running", "a+! x1 running was Error:1", "Box Init Ready Cont"],
    ),
    (
        "it crashes",
        pod(),
        "s0+ a0=exited:1 a1=exited:2",
        {},
        ["Running", "a x1 CrashLoopBackOff was Error:2", "Box Init"],
    ),
    (
        "it was killed for its memory",
        pod(policy="Never"),
        "s0+ a0=exited:137,reason=OOMKilled",
        {},
        ["Failed", "a x0 OOMKilled:137", "Box Init"],
    ),
    (
        "its sandbox has ended",
        pod(),
        "s0- a0=exited:137",
        {},
        ["Running", "a x0 Error:137", "Init"],
    ),
]

OVER: list[Row] = [
    (
        "all ended well",
        pod("a b", policy="Never"),
        "s0+ a0=exited:0 b0=exited:0",
        {},
        ["Succeeded", "a x0 Completed:0", "b x0 Completed:0", "Box Init(PodCompleted)"],
    ),
    (
        "one ended badly",
        pod("a b", policy="Never"),
        "s0- a0=exited:0 b0=exited:3",
        {},
        ["Failed", "a x0 Completed:0", "b x0 Error:3", "Init"],
    ),
    (
        "OnFailure: in the end it did",
        pod(policy="OnFailure"),
        "s0- a0=exited:3 a1=exited:0",
        {},
        ["Succeeded", "a x1 Completed:0 was Error:3", "Init(PodCompleted)"],
    ),
    (
        "one still runs",
        pod("a b", policy="Never"),
        "s0+ a0=exited:1 b0=running",
        {},
        ["Running", "a x0 Error:1", "b+! x0 running", "Box Init"],
    ),
    (
        "a phase is final",
        pod(policy="Never", phase="Failed"),
        "s0- a0=exited:0",
        {},
        ["Failed", "a x0 Completed:0", "Init"],
    ),
    (
        "too long: it is ending",
        pod(phase="Running"),
        "s0+ a0=running",
        {"failed": ("DeadlineExceeded", "")},
        ["Running DeadlineExceeded", "a+! x0 running", "Box Init Ready Cont"],
    ),
    (
        "too long: it has ended",
        pod(phase="Running"),
        "s0- a0=exited:0",
        {"failed": ("DeadlineExceeded", "")},
        ["Failed DeadlineExceeded", "a x0 Completed:0", "Init"],
    ),
    (
        "Never, and its sandbox has ended",
        pod("a b", policy="Never"),
        "s0- a0=exited:0",
        {},
        ["Failed", "a x0 Completed:0", "b x0 ContainerCreating", "Init"],
    ),
]

INIT: list[Row] = [
    (
        "the first init container",
        pod(init="i j"),
        "s0+ i0=running",
        {},
        [
            "Pending",
            "i! x0 running",
            "j x0 PodInitializing",
            "a x0 PodInitializing",
            "Box",
        ],
    ),
    (
        "all are done",
        pod(init="i"),
        "s0+ i0=exited:0 a0=running",
        {},
        ["Running", "i+ x0 Completed:0", "a+! x0 running", "Box Init Ready Cont"],
    ),
    (
        "one crashes",
        pod(init="i"),
        "s0+ i1=exited:1",
        {},
        ["Pending", "i x1 CrashLoopBackOff was Error:1", "a x0 PodInitializing", "Box"],
    ),
    (
        "one failed, Never",
        pod(init="i", policy="Never"),
        "s0+ i0=exited:1",
        {},
        ["Failed", "i x0 Error:1", "a x0 PodInitializing", "Box"],
    ),
    (
        "a sidecar counts",
        pod(init="*s"),
        "s0+ s1=exited:1 a0=running",
        {},
        [
            "Running",
            "s x1 CrashLoopBackOff was Error:1",
            "a+! x0 running",
            "Box Init",
        ],
    ),
    (
        "a sidecar outlives a job",
        pod(init="*s", policy="Never"),
        "s0+ s0=running a0=exited:0",
        {},
        ["Running", "s+! x0 running", "a x0 Completed:0", "Box Init"],
    ),
    (
        "and then it is over, however that ended",
        pod(init="*s", policy="Never"),
        "s0+ s0=exited:143 a0=exited:0",
        {},
        [
            "Succeeded",
            "s x0 Error:143",
            "a x0 Completed:0",
            "Box Init(PodCompleted)",
        ],
    ),
]

ENDING: list[Row] = [
    (
        "it is ending",
        pod(deleted=30, phase="Running"),
        "s0+ a0=running",
        {},
        ["Running", "a+! x0 running", "Box Init Ready Cont"],
    ),
    (
        "it heard the signal",
        pod(deleted=30, phase="Running"),
        "s0+ a0=exited:143",
        {},
        ["Failed", "a x0 Error:143", "Box Init"],
    ),
    (
        "it ended well",
        pod(deleted=30, phase="Running"),
        "s0+ a0=exited:0",
        {},
        ["Succeeded", "a x0 Completed:0", "Box Init(PodCompleted)"],
    ),
    ("it never began", pod(deleted=30), "", {}, ["Pending", "a x0 -", "Init"]),
]

ROWS = [*GOING, *OVER, *INIT, *ENDING]


@pytest.mark.parametrize(
    ("about", "wanted", "there", "more", "lines"), ROWS, ids=[row[0] for row in ROWS]
)
def test_seen(about: str, wanted: Any, there: str, more: dict[str, Any], lines: list[str]) -> None:
    seen = see(there)
    assert said(status.make(wanted, seen, remember(seen, **more), AROUND, MOMENT)) == lines


def test_the_numbers_and_addresses() -> None:
    seen = see("s0+ a0=exited:3,message=bye a1=running")
    made = status.make(pod(), seen, remember(seen), AROUND, MOMENT)
    (one,) = made.container_statuses
    assert (made.host_ip, made.pod_ip) == ("192.0.2.1", "10.0.0.0")
    assert [each.ip for each in made.pod_ips] == ["10.0.0.0"]
    assert (one.container_id, one.image_id) == ("containerd://a1", "sha256:a")
    last = one.last_state.terminated
    assert (last.message, last.container_id) == ("bye", "containerd://a0")
    assert (last.started_at.seconds, last.finished_at.seconds) == (int(WALL) - 1, int(WALL))
    assert made.start_time.seconds == int(WALL)
    assert made.observed_generation == 1


def test_who_waits_for_a_restart_is_told_how_long() -> None:
    seen = see("s0+ a3=exited:1,delay=20")
    made = status.make(pod(), seen, remember(seen), AROUND, MOMENT)
    assert made.container_statuses[0].state.waiting.message == (
        "back-off 40s restarting failed container=a pod=web_default"
        "(11111111-2222-4333-8444-555555555555)"
    )


def test_the_pod_of_the_nodes_network_has_the_nodes_addresses() -> None:
    wanted, seen = pod(host_network=True), see("s0+ a0=running")
    made = status.make(wanted, seen, remember(seen), AROUND, MOMENT)
    assert made.pod_ip == "192.0.2.1"


def test_others_conditions_are_kept_as_the_api_has_them() -> None:
    wanted, seen = pod(), see("s0+ a0=running")
    wanted.status.conditions.add(type="PodScheduled", status="True")
    wanted.status.qos_class = "Burstable"
    before = status.make(wanted, seen, remember(seen), AROUND, MOMENT)
    wanted.status.conditions.add(type="example.com/gate", status="True")
    wanted.spec.readiness_gates.add(condition_type="example.com/gate")
    made = status.make(wanted, seen, remember(seen), AROUND, MOMENT, before)
    kinds = {one.type: one.status for one in made.conditions}
    assert kinds["PodScheduled"] == kinds["example.com/gate"] == kinds["Ready"] == "True"
    assert made.qos_class == "Burstable"
    del wanted.status.conditions[-1]
    made = status.make(wanted, seen, remember(seen), AROUND, MOMENT, made)
    ready = next(one for one in made.conditions if one.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "ReadinessGatesNotReady")
    assert ready.message == (
        'corresponding condition of pod readiness gate "example.com/gate" does not exist.'
    )


def test_moments_move_only_with_what_they_are_about() -> None:
    """Though the API has not heard of the last word yet."""
    wanted, seen = pod(), see("s0+ a0=running")
    first = status.make(wanted, seen, remember(seen), AROUND, MOMENT)
    later = status.Moment(WALL + 50, NOW + 50)
    assert status.make(wanted, seen, remember(seen), AROUND, later, first) == first
    ended = see("s0+ a0=exited:1")
    second = status.make(wanted, ended, remember(ended), AROUND, later, first)
    moments = {one.type: one.last_transition_time.seconds - WALL for one in second.conditions}
    assert moments == {
        "PodReadyToStartContainers": 0,
        "Initialized": 0,
        "Ready": 50,
        "ContainersReady": 50,
    }
    assert second.start_time == first.start_time


def test_what_the_runtime_has_forgotten_stays_told() -> None:
    seen = see("s0+ a0=exited:1 a1=exited:3,message=bye")
    wanted = pod(policy="Never")
    wanted.status.CopyFrom(status.make(wanted, seen, remember(seen), AROUND, MOMENT))
    assert wanted.status.phase == "Failed"
    again = status.make(wanted, NOTHING, sync.Memory(), AROUND, MOMENT)
    assert again.container_statuses == wanted.status.container_statuses
    assert again.phase == "Failed"


def test_a_running_container_that_is_lost_with_its_pod_is_said_to_be() -> None:
    seen = see("s0+ a2=running")
    wanted = pod(deleted=30)
    wanted.status.CopyFrom(status.make(wanted, seen, remember(seen), AROUND, MOMENT))
    made = status.make(wanted, NOTHING, sync.Memory(), AROUND, MOMENT)
    assert said(made)[1] == "a x2 ContainerStatusUnknown:137"


def test_restarts_are_never_counted_down() -> None:
    wanted, seen = pod(), see("s0+ a5=running")
    before = status.make(wanted, seen, remember(seen), AROUND, MOMENT)
    now = see("s0+")
    made = status.make(wanted, now, remember(now), AROUND, MOMENT, before)
    assert made.container_statuses[0].restart_count == 5


@given(scenes())
@settings(max_examples=budget.examples(150), deadline=None)
def test_there_is_always_a_status(scene: tuple[Any, Observed, sync.Memory]) -> None:
    wanted, seen, memory = scene
    made = status.make(wanted, seen, memory, AROUND, MOMENT)
    # Saying it again changes nothing, whether the API has it or not.
    assert status.make(wanted, seen, memory, AROUND, MOMENT, made) == made
    heard = pod_pb2.Pod()
    heard.CopyFrom(wanted)
    heard.status.CopyFrom(made)
    if not sync.ending(heard, memory) or sync.ending(wanted, memory):
        assert status.make(heard, seen, memory, AROUND, MOMENT) == made
    assert len(made.container_statuses) == len(wanted.spec.containers)
    assert len({one.type for one in made.conditions}) == len(made.conditions)
    ready = {one.type: one.status for one in made.conditions}
    if made.phase in sync.FINAL:
        assert ready["Ready"] == ready["ContainersReady"] == "False"
        assert wanted.status.phase == made.phase or not seen.running
