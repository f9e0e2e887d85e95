"""What hooks and probes have found of one instance of a container so far. Pure.

An instance has begun when its postStart hook is through, has started when its startup probe has
succeeded, and is ready when its readiness probe holds; where there is no hook or probe, that is so
at once. What a hook or probe condemns has to end. All of it belongs to the instance: the next one
begins anew.
"""

from dataclasses import dataclass, replace

from kcore_api.kcore.core.v1 import container_pb2, container_status_pb2

STARTUP, LIVENESS, READINESS = "startup", "liveness", "readiness"
KINDS = (STARTUP, LIVENESS, READINESS)
DEFAULT_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Sentence:
    """Why an instance has to end, and with how much grace if not the pod's."""

    why: str
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Of one instance."""

    begun: bool = True
    started: bool = True
    ready: bool = True
    sentence: Sentence | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Equal answers in a row that a probe got."""

    is_success: bool = False
    row: int = 0


def fresh(spec: container_pb2.Container) -> Health:
    """Of an instance that nothing has been asked yet."""
    begun = not spec.lifecycle.HasField("post_start")
    return _held(spec, Health(begun, started=False, ready=False), started=False, ready=False)


def recalled(
    spec: container_pb2.Container, said: container_status_pb2.ContainerStatus | None
) -> Health:
    """Of an instance that somebody before us has looked after; `said`: what they said of it."""
    if said is None:
        return fresh(spec)
    started = said.started or not spec.HasField("startup_probe")
    return Health(begun=True, started=started, ready=said.ready)


def begin(spec: container_pb2.Container, health: Health) -> Health:
    """Its postStart hook is through."""
    return _held(spec, replace(health, begun=True), started=False, ready=False)


def condemn(health: Health, why: str, grace_seconds: int | None = None) -> Health:
    """It has to end."""
    return replace(health, ready=False, sentence=Sentence(why, grace_seconds))


def probe_of(spec: container_pb2.Container, kind: str) -> container_pb2.Probe | None:
    """The container's probe of a kind."""
    field = f"{kind}_probe"
    return getattr(spec, field) if spec.HasField(field) else None


def due(spec: container_pb2.Container, health: Health, *, ending: bool) -> tuple[str, ...]:
    """The probes that are asked now. Of a pod that ends, people want to know readiness only."""
    if not health.begun or health.sentence is not None:
        return ()
    if not health.started:
        asked: tuple[str, ...] = () if ending else (STARTUP,)
    else:
        asked = (READINESS,) if ending else (LIVENESS, READINESS)
    return tuple(kind for kind in asked if probe_of(spec, kind) is not None)


def count(tally: Tally, is_success: bool) -> Tally:
    """One more answer."""
    return Tally(is_success, tally.row + 1 if tally.is_success == is_success else 1)


def found(spec: container_pb2.Container, kind: str, health: Health, tally: Tally) -> Health:
    """After an answer: changes once there were enough of them in a row."""
    probe = probe_of(spec, kind)
    assert probe is not None
    enough = probe.success_threshold or 1
    if not tally.is_success:
        enough = probe.failure_threshold or DEFAULT_FAILURES
    if tally.row < enough:
        return health
    if kind == READINESS:
        return replace(health, ready=tally.is_success)
    if not tally.is_success:
        own = probe.termination_grace_period_seconds
        return condemn(health, f"Container {spec.name} failed {kind} probe", own or None)
    if kind == STARTUP and not health.started:
        return _held(spec, health, started=True, ready=False)
    return health


def _held(spec: container_pb2.Container, health: Health, *, started: bool, ready: bool) -> Health:
    """With what follows where nothing is asked."""
    started = health.begun and (started or not spec.HasField("startup_probe"))
    return replace(
        health, started=started, ready=started and (ready or not spec.HasField("readiness_probe"))
    )
