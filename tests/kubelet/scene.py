"""Words for tests: a pod, what the runtime has of it, what a worker remembers, and plans in words.

    pod("a b", init="i *s", policy="Never")     # `*`: a sidecar
    see("s0+ a0=running b1=exited:3")           # sandbox 0 is ready; b's attempt 1 ended with 3
    words(sync.plan(…))                         # ["start a0", "kill b1 30", …]

All of it happens at NOW by the steady clock and at WALL by the one on the wall. A container ended
just now, after a second, unless it says `ago=` and `ran=`; `delay=` is what was waited before it.
"""

import re
from typing import Any

from hypothesis import strategies as st
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import health, status, sync
from kcore.kubelet.observed import Container, Observed, Sandbox

NOW, WALL = 10_000.0, 1_700_000_000.0
AROUND = status.Surroundings(("192.0.2.1",), "containerd")
MOMENT = status.Moment(WALL, NOW)
UID = "11111111-2222-4333-8444-555555555555"


def pod(
    containers: str = "a",
    *,
    init: str = "",
    extra: str = "",
    done: str = "",
    policy: str = "Always",
    deleted: int | None = None,
    phase: str = "Pending",
    **spec: Any,
) -> pod_pb2.Pod:
    """A pod; `deleted`: the grace of its deletion; `extra`: ephemeral ones, `done`: of those."""
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = "web", "default", UID
    made.metadata.generation = 1
    made.status.phase = phase
    made.spec.restart_policy = policy
    for name in containers.split():
        _container(made.spec.containers.add(), name)
    for name in init.split():
        one = _container(made.spec.init_containers.add(), name.lstrip("*"))
        if name.startswith("*"):
            one.restart_policy = "Always"
    for name in done.split():
        made.status.ephemeral_container_statuses.add(name=name, container_id=f"containerd://{name}")
    for name in extra.split():
        _container(made.spec.ephemeral_containers.add().ephemeral_container_common, name)
    if deleted is not None:
        made.metadata.deletion_timestamp.seconds = int(WALL) + deleted
        made.metadata.deletion_grace_period_seconds = deleted
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def _container(one: container_pb2.Container, name: str) -> container_pb2.Container:
    one.name, one.image, one.image_pull_policy = name, f"{name}:1", "IfNotPresent"
    return one


def hooked(of: pod_pb2.Pod) -> pod_pb2.Pod:
    """The same pod, whose first container has a postStart hook."""
    sync.every(of)[0].lifecycle.post_start.sleep.seconds = 1
    return of


_SANDBOX = re.compile(r"s(\d+)([+-])")
_CONTAINER = re.compile(r"([a-z]+)(\d+)(?:@(\d+))?=([a-z]+)(?::(\d+))?(.*)")


def see(text: str) -> Observed:
    """What the runtime has. `a0@1`: in sandbox 1, else in the newest; options after commas."""
    boxes: list[Sandbox] = []
    found: list[Container] = []
    for word in text.split():
        if match := _SANDBOX.fullmatch(word):
            number, sign = match.groups()
            address = (f"10.0.0.{number}",)
            boxes.insert(0, Sandbox(f"s{number}", int(number), sign == "+", WALL, address))
            continue
        match = _CONTAINER.fullmatch(word)
        assert match is not None, word
        name, attempt, box, state, code, rest = match.groups()
        more = dict(each.split("=") for each in rest.split(",") if each)
        ended = WALL - float(more.get("ago", 0))
        spec = container_pb2.Container(name=name, image=more.get("image", f"{name}:1"))
        found.append(
            Container(
                id=f"{name}{attempt}",
                name=name,
                attempt=int(attempt),
                sandbox=f"s{box}" if box else (boxes[0].id if boxes else "s?"),
                state=state,
                created_at=WALL - 7200,
                started_at=ended - float(more.get("ran", 1)) if state != "created" else 0.0,
                finished_at=ended if state == "exited" else 0.0,
                exit_code=int(code or 0),
                reason=more.get("reason", ""),
                message=more.get("message", ""),
                image_id=f"sha256:{name}",
                hash=sync.fingerprint(spec),
                delay=float(more.get("delay", 0)),
            )
        )
    found.sort(key=lambda one: (-one.attempt, one.name))
    return Observed(tuple(boxes), tuple(found))


def remember(seen: Observed, **more: Any) -> sync.Memory:
    """What a worker knows that has looked at this; and `problem_a=(reason, seconds)`, ….

    `killing_a0=5`: its grace ends in so many seconds; `taken_a=0`, `pulling_a=1`, fields as named.
    """
    memory = sync.Memory()
    for one in seen.containers:
        if one.state == "exited":
            memory.ended[one.id] = NOW - (WALL - one.finished_at)
    for key, value in more.items():
        what, _, whom = key.partition("_")
        if what == "problem":
            reason, seconds = value
            memory.problems[whom] = sync.Problem(reason, f"{reason}!", NOW + seconds, 10.0)
        elif what == "killing":
            memory.killing[whom] = NOW + value
        elif what == "taken":
            memory.taken[whom] = value
        elif what == "pulling":
            memory.pulling.add(whom)
        else:
            setattr(memory, key, value)
    return memory


def words(plan: sync.Plan) -> list[str]:
    """The steps, and last when to ask again."""
    found = [_word(step) for step in plan.steps]
    if plan.again_at is not None:
        found.append(f"again in {plan.again_at - NOW:g}")
    return found


def _word(step: sync.Step) -> str:
    match step:
        case sync.RunSandbox(attempt):
            return f"sandbox {attempt}"
        case sync.StopSandbox(id_):
            return f"stop {id_}"
        case sync.RemoveSandbox(id_):
            return f"remove {id_}"
        case sync.Start(name, attempt, sandbox, delay):
            after = f" after {delay:g}" if delay else ""
            return f"start {name}{attempt} in {sandbox}{after}"
        case sync.Begin(id_, _):
            return f"begin {id_}"
        case sync.Kill(id_, _, seconds, _):
            return f"kill {id_} in {seconds}"
        case sync.RemoveContainer(id_, _):
            return f"forget {id_}"
        case sync.Finish():
            return "finish"


def said(made: pod_pb2.PodStatus) -> list[str]:
    """A status in a few lines: phase and reason, containers, conditions that hold."""
    lines = [" ".join(part for part in (made.phase, made.reason) if part)]
    for one in (
        *made.init_container_statuses,
        *made.container_statuses,
        *made.ephemeral_container_statuses,
    ):
        flags = "".join(sign for sign, holds in (("+", one.ready), ("!", one.started)) if holds)
        last = f" was {_state(one.last_state)}" if one.last_state.HasField("terminated") else ""
        lines.append(f"{one.name}{flags} x{one.restart_count} {_state(one.state)}{last}")
    short = {
        "PodReadyToStartContainers": "Box",
        "Initialized": "Init",
        "Ready": "Ready",
        "ContainersReady": "Cont",
    }
    lines.append(
        " ".join(
            short[one.type] + (f"({one.reason})" if one.reason else "")
            for one in made.conditions
            if one.status == "True" and one.type in short
        )
    )
    return lines


def _state(state: Any) -> str:
    if state.HasField("waiting"):
        return str(state.waiting.reason)
    if state.HasField("running"):
        return "running"
    if state.HasField("terminated"):
        return f"{state.terminated.reason}:{state.terminated.exit_code}"
    return "-"


# -- any scene at all ------------------------------------------------------------------------------

NAMES = ["a", "b", "i", "s", "x"]
moments = st.sampled_from([0.0, 1.0, 9.9, 10.0, 300.0, 601.0, 4000.0])


healths = st.builds(
    health.Health,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, health.Sentence("")]),
)


@st.composite
def containers(draw: Any, boxes: list[Sandbox]) -> Container:
    state = draw(st.sampled_from(["created", "running", "exited", "unknown"]))
    name, attempt = draw(st.sampled_from(NAMES)), draw(st.integers(0, 4))
    box = draw(st.sampled_from([*(box.id for box in boxes), "s9"]))
    ended = WALL - draw(moments)
    fine = sync.fingerprint(of_image(name, draw(st.sampled_from(["1", "1", "1", "2"]))))
    return Container(
        id=f"{name}{attempt}{box}{state}",
        name=name,
        attempt=attempt,
        sandbox=box,
        state=state,
        created_at=ended - 5000,
        started_at=ended - draw(moments),
        finished_at=ended if state == "exited" else 0.0,
        exit_code=draw(st.sampled_from([0, 1, 137])),
        hash=draw(st.sampled_from([fine, ""])),
        delay=draw(st.sampled_from([0.0, 10.0, 300.0])),
    )


def of_image(name: str, tag: str) -> Any:
    """A container of this name and tag."""
    one = pod(name).spec.containers[0]
    one.image = f"{name}:{tag}"
    return one


@st.composite
def scenes(draw: Any) -> tuple[Any, Observed, sync.Memory]:
    wanted = pod(
        draw(st.sampled_from(["a", "a b"])),
        init=draw(st.sampled_from(["", "i", "*s", "i *s", "*s i"])),
        extra=draw(st.sampled_from(["", "", "x"])),
        policy=draw(st.sampled_from(["Always", "OnFailure", "Never", ""])),
        deleted=draw(st.sampled_from([None, None, None, 0, 30])),
        phase=draw(st.sampled_from(["Pending", "Running", "Running", "Failed"])),
    )
    if draw(st.booleans()):
        hooked(wanted)
    count = draw(st.integers(0, 3))
    boxes = [
        Sandbox(f"s{number}", number, draw(st.booleans()), WALL)
        for number in reversed(range(count))
    ]
    inside = draw(st.lists(containers(boxes), max_size=6, unique_by=lambda one: one.id))
    inside.sort(key=lambda one: (-one.attempt, one.name))
    seen = Observed(tuple(boxes), tuple(inside))
    memory = remember(seen)
    for one in inside:
        if one.state == "running" and draw(st.booleans()):
            memory.killing[one.id] = NOW + draw(moments)
        if one.state == "running" and draw(st.booleans()):
            memory.healths[one.id] = draw(healths)
    for name in draw(st.sets(st.sampled_from(["", *NAMES]))):
        memory.problems[name] = sync.Problem("ErrImagePull", "", NOW + draw(moments) - 10, 10.0)
    if draw(st.booleans()):
        memory.ends_at = NOW + draw(moments)
    memory.failed = draw(st.sampled_from([None, None, ("Evicted", "")]))
    return wanted, seen, memory
