"""What the kubelet does next, row by row; and laws that hold whatever is there."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from kcore.kubelet import sync
from kcore.kubelet.health import Health, Sentence
from kcore.kubelet.observed import Container, Observed, Sandbox
from tests import budget
from tests.kubelet.scene import NOW, WALL, hooked, of_image, pod, remember, scenes, see, words

# What it is about | the pod | what the runtime has | what is remembered | what comes next.
Row = tuple[str, Any, str, dict[str, Any], list[str]]

STARTING: list[Row] = [
    ("nothing is there", pod(), "", {}, ["sandbox 0"]),
    ("a sandbox is there", pod("a b"), "s0+", {}, ["start a0 in s0", "start b0 in s0"]),
    ("all runs", pod("a b"), "s0+ a0=running b0=running", {}, []),
    ("one runs", pod("a b"), "s0+ a0=running", {}, ["start b0 in s0"]),
    ("a kubelet died before the start", pod(), "s0+ a0=created", {}, ["forget a0"]),
    ("the runtime lost track of it", pod(), "s0+ a0=unknown", {}, ["forget a0"]),
    ("the sandbox's name is taken", pod(), "", {"taken_": 0}, ["sandbox 1"]),
    ("its name is taken", pod(), "s0+", {"taken_a": 0}, ["start a1 in s0"]),
    ("its image is being pulled", pod("a b"), "s0+", {"pulling_a": 1}, ["start b0 in s0"]),
    ("no image yet", pod(), "s0+", {"problem_a": ("ErrImagePull", 7)}, ["again in 7"]),
    ("no network yet", pod(), "", {"problem_": ("ContainerCreating", 3)}, ["again in 3"]),
    ("no image, time to ask", pod(), "s0+", {"problem_a": ("ErrImagePull", 0)}, ["start a0 in s0"]),
    ("an end to come", pod(), "s0+ a0=running", {"deadline_at": NOW + 60}, ["again in 60"]),
]

RESTARTING: list[Row] = [
    ("at once the first time", pod(), "s0+ a0=exited:1", {}, ["start a1 in s0"]),
    ("then after 10 s", pod(), "s0+ a1=exited:1,ago=4", {}, ["again in 6"]),
    ("10 s are over", pod(), "s0+ a1=exited:1,ago=10", {}, ["start a2 in s0 after 10"]),
    ("then after 20 s", pod(), "s0+ a2=exited:1,delay=10", {}, ["again in 20"]),
    ("then after 40 s", pod(), "s0+ a3=exited:1,delay=20", {}, ["again in 40"]),
    ("at most after 300 s", pod(), "s0+ a9=exited:1,delay=300", {}, ["again in 300"]),
    ("anew after 10 min", pod(), "s0+ a9=exited:1,delay=300,ran=600", {}, ["start a10 in s0"]),
    ("success, too", pod(), "s0+ a1=exited:0", {}, ["again in 10"]),
    ("OnFailure: a failure", pod(policy="OnFailure"), "s0+ a0=exited:1", {}, ["start a1 in s0"]),
    ("OnFailure: success", pod(policy="OnFailure"), "s0+ a0=exited:0", {}, ["stop s0"]),
    ("Never: a failure", pod(policy="Never"), "s0+ a0=exited:1", {}, ["stop s0"]),
    ("Never: success", pod(policy="Never"), "s0+ a0=exited:0", {}, ["stop s0"]),
    ("Never: one still runs", pod("a b", policy="Never"), "s0+ a0=exited:1 b0=running", {}, []),
    ("Never: all is done", pod(policy="Never"), "s0- a0=exited:1", {}, []),
    (
        "the two last instances are kept",
        pod(),
        "s0+ a0=exited:1 a1=exited:1 a2=exited:1,ago=1",
        {},
        ["forget a0", "again in 9"],
    ),
    (
        "another image",
        pod(),
        "s0+ a0=running,image=a:0",
        {},
        ["kill a0 in 30"],
    ),
    ("another image, it has ended", pod(), "s0+ a3=exited:137,image=a:0", {}, ["start a4 in s0"]),
    (
        "another image, the kill is under way",
        pod(),
        "s0+ a0=running,image=a:0",
        {"killing_a0": 20},
        [],
    ),
]

SICK = Health(sentence=Sentence("Container a failed liveness probe"))
UNBEGUN = Health(begun=False, started=False, ready=False)
UNSTARTED = Health(started=False, ready=False)

HEALTH: list[Row] = [
    ("condemned", pod(), "s0+ a0=running", {"healths": {"a0": SICK}}, ["kill a0 in 30"]),
    (
        "with a grace of its own",
        pod(),
        "s0+ a0=running",
        {"healths": {"a0": Health(sentence=Sentence("", 5))}},
        ["kill a0 in 5"],
    ),
    (
        "the kill is under way",
        pod(),
        "s0+ a0=running",
        {"healths": {"a0": SICK}, "killing_a0": 20},
        [],
    ),
    ("another one was", pod(), "s0+ a0=exited:1 a1=running", {"healths": {"a0": SICK}}, []),
    ("it begins", hooked(pod("a b")), "s0+ a0=running", {}, ["begin a0"]),
    ("nobody overtakes it", hooked(pod("a b")), "s0+", {}, ["start a0 in s0"]),
    ("… nor while its image comes", hooked(pod("a b")), "s0+", {"pulling_a": 1}, []),
    (
        "… but its failures hold up nobody",
        hooked(pod("a b")),
        "s0+",
        {"problem_a": ("ErrImagePull", 7)},
        ["start b0 in s0", "again in 7"],
    ),
    (
        "it has begun",
        hooked(pod("a b")),
        "s0+ a0=running",
        {"healths": {"a0": Health()}},
        ["start b0 in s0"],
    ),
    (
        "a sidecar that has not started",
        pod(init="*s"),
        "s0+ s0=running",
        {"healths": {"s0": UNSTARTED}},
        [],
    ),
    ("… and that has not begun", hooked(pod(init="*s")), "s0+ s0=running", {}, ["begin s0"]),
    (
        "… no longer, when others run",
        pod(init="*s"),
        "s0+ s1=running a0=running",
        {"healths": {"s1": UNSTARTED}},
        [],
    ),
]

EPHEMERAL: list[Row] = [
    ("it starts at once", pod(extra="x"), "s0+ a0=running", {}, ["start x0 in s0"]),
    (
        "… also when nothing else does",
        pod(extra="x", init="i"),
        "s0+ i1=exited:1",
        {},
        ["start x0 in s0", "again in 10"],
    ),
    ("it runs", pod(extra="x"), "s0+ a0=running x0=running", {}, []),
    ("once", pod(extra="x"), "s0+ a0=running x0=exited:1", {}, []),
    ("… in all sandboxes", pod(extra="x"), "s0- s1+ a1=running x0@0=exited:1", {}, []),
    ("… though nobody knows of it", pod(extra="x", done="x"), "s0+ a0=running", {}, []),
    (
        "it holds up no end",
        pod(extra="x", policy="Never"),
        "s0+ a0=exited:0 x0=running",
        {},
        ["kill x0 in 30"],
    ),
    ("it ends with the pod", pod(extra="x", deleted=5), "s0+ x0=running", {}, ["kill x0 in 5"]),
]

SANDBOXES: list[Row] = [
    ("it has ended", pod(), "s0- a0=exited:137", {}, ["sandbox 1"]),
    ("its containers have not", pod(), "s0- a0=running", {}, ["kill a0 in 2"]),
    ("… and are being killed", pod(), "s0- a0=running", {"killing_a0": 2}, []),
    ("the next one starts them", pod(), "s0- s1+ a0@0=exited:137", {}, ["start a1 in s1"]),
    ("an old one is left", pod(), "s0- s1+ a0=running", {}, ["remove s0"]),
    ("an old one still runs", pod(), "s0+ s1+ a0=running", {}, ["stop s0"]),
    (
        "what was made in it and never started goes",
        pod(),
        "s0- s1+ a0@0=created",
        {},
        ["forget a0", "forget a0"],
    ),
    ("Never: over with it", pod("a b", policy="Never"), "s0- a0=exited:255", {}, []),
    ("Never: nothing had started", pod(policy="Never"), "s0- a0=created", {}, ["sandbox 1"]),
    (
        "OnFailure: what succeeded stays done",
        pod("a b", policy="OnFailure"),
        "s0- s1+ a0@0=exited:0 b0@0=exited:255",
        {},
        ["start b1 in s1"],
    ),
    (
        "init containers run again",
        pod(init="i"),
        "s0- s1+ i0@0=exited:0 a0@0=exited:255",
        {},
        ["start i1 in s1"],
    ),
]

INIT: list[Row] = [
    ("the first one", pod(init="i j"), "s0+", {}, ["start i0 in s0"]),
    ("it runs", pod(init="i j"), "s0+ i0=running", {}, []),
    ("the next one", pod(init="i j"), "s0+ i0=exited:0", {}, ["start j0 in s0"]),
    ("all are done", pod(init="i j"), "s0+ i0=exited:0 j0=exited:0", {}, ["start a0 in s0"]),
    ("it failed", pod(init="i"), "s0+ i0=exited:1", {}, ["start i1 in s0"]),
    ("it failed again", pod(init="i"), "s0+ i1=exited:1", {}, ["again in 10"]),
    ("it failed, Never", pod(init="i", policy="Never"), "s0+ i0=exited:1", {}, ["stop s0"]),
    ("its record is lost", pod(init="i j"), "s0+ j0=running", {}, []),
    ("all records are lost", pod(init="i j"), "s0+ a0=running", {}, []),
    ("a sidecar first", pod(init="*s i"), "s0+", {}, ["start s0 in s0"]),
    ("the next when it runs", pod(init="*s i"), "s0+ s0=running", {}, ["start i0 in s0"]),
    (
        "a sidecar crashed before the next",
        pod(init="*s i"),
        "s0+ s1=exited:1",
        {},
        ["again in 10"],
    ),
    (
        "a sidecar crashed later: others go on",
        pod(init="*s i"),
        "s0+ s0=exited:0 i0=exited:0",
        {},
        ["start s1 in s0", "start a0 in s0"],
    ),
    (
        "sidecars restart whatever the policy",
        pod(init="*s", policy="Never"),
        "s0+ s0=exited:0 a0=running",
        {},
        ["start s1 in s0"],
    ),
    (
        "sidecars end when the others have",
        pod(init="*s *t", policy="Never"),
        "s0+ s0=running t0=running a0=exited:0",
        {},
        ["kill t0 in 30"],
    ),
    (
        "… in reverse order, within one grace",
        pod(init="*s *t", policy="Never"),
        "s0+ s0=running t0=exited:0 a0=exited:0",
        {"ends_at": NOW + 12},
        ["kill s0 in 12"],
    ),
]

ENDING: list[Row] = [
    ("deleted", pod("a b", deleted=30), "s0+ a0=running b0=exited:1", {}, ["kill a0 in 30"]),
    ("the kill is under way", pod(deleted=30), "s0+ a0=running", {"killing_a0": 25}, []),
    ("less grace", pod(deleted=5), "s0+ a0=running", {"killing_a0": 25}, ["kill a0 in 5"]),
    ("more grace is not given", pod(deleted=60), "s0+ a0=running", {"killing_a0": 25}, []),
    ("by force: a moment is left", pod(deleted=0), "s0+ a0=running", {}, ["kill a0 in 2"]),
    (
        "it wants no grace",
        pod(deleted=0, termination_grace_period_seconds=0),
        "s0+ a0=running",
        {},
        ["kill a0 in 0"],
    ),
    ("it has ended", pod(deleted=30), "s0+ a0=exited:143", {}, ["stop s0", "finish"]),
    ("it never began", pod(deleted=30), "", {}, ["finish"]),
    ("nothing starts any more", pod("a b", deleted=30), "s0+", {}, ["stop s0", "finish"]),
    (
        "sidecars come last",
        pod(init="*s i", deleted=30),
        "s0+ s0=running i0=running",
        {},
        ["kill i0 in 30"],
    ),
    (
        "… with what is left, 2 s at least",
        pod(init="*s", deleted=30),
        "s0+ s0=running a0=exited:137",
        {"ends_at": NOW + 0.5},
        ["kill s0 in 2"],
    ),
    ("failed as a whole", pod(), "s0+ a0=running", {"failed": ("Evicted", "")}, ["kill a0 in 30"]),
    ("… and then stays", pod(), "s0- a0=exited:143", {"failed": ("Evicted", "")}, []),
    ("the API says it is over", pod(phase="Failed"), "s0+ a0=running", {}, ["kill a0 in 30"]),
    ("over, and forgotten by the runtime", pod(phase="Succeeded", policy="Never"), "", {}, []),
]


@pytest.mark.parametrize(
    ("about", "wanted", "there", "more", "steps"),
    [*STARTING, *RESTARTING, *HEALTH, *EPHEMERAL, *SANDBOXES, *INIT, *ENDING],
    ids=[
        row[0] for row in (*STARTING, *RESTARTING, *HEALTH, *EPHEMERAL, *SANDBOXES, *INIT, *ENDING)
    ],
)
def test_next(about: str, wanted: Any, there: str, more: dict[str, Any], steps: list[str]) -> None:
    seen = see(there)
    assert words(sync.plan(wanted, seen, remember(seen, **more), NOW)) == steps


def test_a_clock_that_jumped_back_makes_nobody_wait_longer() -> None:
    # By the wall it ended in an hour; the worker noted when it saw that.
    seen = see("s0+ a1=exited:1,ago=-3600")
    memory = sync.Memory(ended={"a1": NOW - 10})
    assert words(sync.plan(pod(), seen, memory, NOW)) == ["start a2 in s0 after 10"]


def test_restarts_are_counted_on_when_the_runtime_has_lost_its_records() -> None:
    wanted = pod()
    wanted.status.container_statuses.add(name="a", container_id="containerd://x", restart_count=4)
    assert words(sync.plan(wanted, see("s0+"), sync.Memory(), NOW)) == ["start a5 in s0"]


def test_failures_wait_twice_as_long_each_time() -> None:
    found: list[float] = []
    before: sync.Problem | None = None
    for _ in range(7):
        before = sync.problem(before, "ErrImagePull", "", NOW)
        found.append(before.again_at - NOW)
    assert found == [10, 20, 40, 80, 160, 300, 300]
    assert sync.problem(before, "RunContainerError", "", NOW).delay == 10


# -- laws ------------------------------------------------------------------------------------------


@given(scenes())
@settings(max_examples=budget.examples(150), deadline=None)
def test_there_is_always_a_plan(scene: tuple[Any, Observed, sync.Memory]) -> None:
    wanted, seen, memory = scene
    planned = sync.plan(wanted, seen, memory, NOW)
    starts = [step for step in planned.steps if isinstance(step, sync.Start)]
    finishes = [step for step in planned.steps if isinstance(step, sync.Finish)]
    if sync.ending(wanted, memory):
        assert not starts
        assert not any(isinstance(step, sync.RunSandbox) for step in planned.steps)
    if finishes:
        assert wanted.metadata.HasField("deletion_timestamp")
        assert not seen.running
        assert planned.steps[-1] == sync.Finish()
    for step in starts:
        # Only in the sandbox that is there, and never beside a living instance.
        assert step.sandbox == seen.sandboxes[0].id and seen.sandboxes[0].ready
        newest = seen.newest(step.name)
        assert newest is None or (newest.state == "exited" and step.attempt > newest.attempt)
    kept = {one.id for one in seen.running}
    assert not any(isinstance(s, sync.RemoveContainer) and s.id in kept for s in planned.steps)


@given(scenes())
@settings(max_examples=budget.examples(150), deadline=None)
def test_a_pod_comes_to_rest(scene: tuple[Any, Observed, sync.Memory]) -> None:
    """Steps that succeed lead to a state in which there is nothing to do, and soon."""
    wanted, seen, memory = scene
    memory.problems.clear()
    now = NOW
    for _ in range(60):
        planned = sync.plan(wanted, seen, memory, now)
        steps = [step for step in planned.steps if not isinstance(step, sync.Finish)]
        if not steps and not memory.killing and planned.again_at is None:
            break
        if len(steps) < len(planned.steps):
            break
        for step in steps:
            seen = done(step, seen, memory, now)
        if not steps:
            now = max([now, *memory.killing.values(), planned.again_at or now])
            for id_ in sorted(memory.killing):
                seen = ended(id_, seen, memory, now)
    else:
        raise AssertionError(words(planned))
    assert sync.plan(wanted, seen, memory, now) == planned


def done(step: sync.Step, seen: Observed, memory: sync.Memory, now: float) -> Observed:
    """What the runtime has after a step; init containers and jobs end well, others run."""
    boxes, inside = list(seen.sandboxes), list(seen.containers)
    match step:
        case sync.RunSandbox(attempt):
            boxes.insert(0, Sandbox(f"s{attempt}", attempt, True, WALL))
        case sync.StopSandbox(id_):
            boxes = [replace(box, ready=box.ready and box.id != id_) for box in boxes]
            for one in [one for one in inside if one.sandbox == id_ and one.state == "running"]:
                seen = ended(one.id, replace(seen, containers=tuple(inside)), memory, now)
                inside = list(seen.containers)
        case sync.RemoveSandbox(id_):
            boxes = [box for box in boxes if box.id != id_]
        case sync.RemoveContainer(id_, _):
            inside = [one for one in inside if one.id != id_]
        case sync.Kill(id_, _, seconds, _):
            memory.killing[id_] = now + seconds
        case sync.Begin(id_, _):
            memory.healths[id_] = Health()
        case sync.Start(name, attempt, sandbox, delay):
            id_ = f"{name}{attempt}{sandbox}new"
            fine = sync.fingerprint(of_image(name, "1"))
            state = "exited" if name == "i" else "running"
            made = Container(
                id_, name, attempt, sandbox, state, WALL, WALL, WALL, 0, hash=fine, delay=delay
            )
            inside.append(made)
            memory.ended[id_] = now
    inside.sort(key=lambda one: (-one.attempt, one.name))
    return Observed(tuple(boxes), tuple(inside))


def ended(id_: str, seen: Observed, memory: sync.Memory, now: float) -> Observed:
    """It has ended by a signal."""
    memory.killing.pop(id_, None)
    memory.ended[id_] = now
    return replace(
        seen,
        containers=tuple(
            replace(one, state="exited", exit_code=143, finished_at=WALL) if one.id == id_ else one
            for one in seen.containers
        ),
    )
