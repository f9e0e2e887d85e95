"""How far an object is: rolled out, ready, failed. Judged by its kind's shape, not by its name.

An object with `spec.template` and `status.updatedReplicas` rolls out, as Deployments do; one with
`spec.template` and `status.replicas` keeps a number of pods, one with `spec.template` and
`status.updatedNumberScheduled` a pod on each node; others are ready by their condition `Ready` or
by their phase. Pure functions of plain objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

from kcore.client.kinds import Kind


@dataclass(frozen=True, slots=True)
class State:
    """`done` and `failed` are final; else `said` tells what is still to come."""

    done: bool
    said: str
    failed: bool = False


def has(kind: Kind, path: str) -> bool:
    """Whether the kind has such a field, in proto names: "spec.template"."""
    descriptor: Descriptor | None = kind.descriptor
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name) if descriptor is not None else None
        if field is None:
            return False
        descriptor = field.message_type
    return True


def state(kind: Kind, plain: Mapping[str, Any]) -> State:
    """How far the object is."""
    if has(kind, "spec.template.spec"):
        if has(kind, "spec.update_strategy") and _strategy(plain).get("type") == "OnDelete":
            said = "rollout status is only there for strategy type RollingUpdate"
            return State(False, f"{_name(kind, plain)}: {said}", failed=True)
        if has(kind, "status.replicas"):
            return _replicas(kind, plain)
        if has(kind, "status.updated_number_scheduled"):
            return _nodes(kind, plain)
    status = plain.get("status") or {}
    ready = _condition(status, "Ready")
    phase = str(status.get("phase") or "")
    name = _name(kind, plain)
    if phase == "Failed":
        reason = status.get("reason") or status.get("message") or "it has failed"
        return State(False, f"{name} has failed: {reason}", failed=True)
    if phase == "Succeeded":
        return State(True, f"{name} has succeeded")
    if ready is not None:
        if ready.get("status") == "True":
            return State(True, f"{name} is ready")
        return State(False, f"{name} is not ready{_why(ready)}")
    if has(kind, "status.phase") and phase in ("", "Pending"):
        return State(False, f"{name} is pending")
    return State(True, f"{name} is there")


def _replicas(kind: Kind, plain: Mapping[str, Any]) -> State:
    spec, status = plain.get("spec") or {}, plain.get("status") or {}
    name = _name(kind, plain)
    waiting = f"Waiting for {name} rollout to finish"
    if status.get("observedGeneration", 0) < plain.get("metadata", {}).get("generation", 0):
        return State(False, f"Waiting for {name} spec update to be observed...")
    wanted = spec.get("replicas", 1)
    have = status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    progressing = _condition(status, "Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return State(False, f"{name} exceeded its progress deadline", failed=True)
    if has(kind, "status.updated_replicas"):
        updated = status.get("updatedReplicas", 0)
        # Lower numbers may stay with the old template.
        kept = (_strategy(plain).get("rollingUpdate") or {}).get("partition", 0)
        goal = max(0, wanted - kept)
        if updated < goal:
            said = f"{updated} out of {goal} new replicas have been updated..."
            return State(False, f"{waiting}: {said}")
        if kept and available >= wanted:
            said = f"{updated} new pods have been updated..."
            return State(True, f"partitioned roll out complete: {said}")
        if have > updated:
            said = f"{have - updated} old replicas are pending termination..."
            return State(False, f"{waiting}: {said}")
        if available < updated:
            said = f"{available} of {updated} updated replicas are available..."
            return State(False, f"{waiting}: {said}")
        return State(True, f"{name} successfully rolled out")
    if have != wanted or available < wanted:
        return State(False, f"{name}: {available} of {wanted} replicas are available")
    return State(True, f"{name} is ready")


def _nodes(kind: Kind, plain: Mapping[str, Any]) -> State:
    status = plain.get("status") or {}
    name = _name(kind, plain)
    waiting = f"Waiting for {name} rollout to finish"
    if status.get("observedGeneration", 0) < plain.get("metadata", {}).get("generation", 0):
        return State(False, f"Waiting for {name} spec update to be observed...")
    wanted = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    if updated < wanted:
        said = f"{updated} out of {wanted} new pods have been updated..."
        return State(False, f"{waiting}: {said}")
    if available < wanted:
        said = f"{available} of {wanted} updated pods are available..."
        return State(False, f"{waiting}: {said}")
    return State(True, f"{name} successfully rolled out")


def _strategy(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (plain.get("spec") or {}).get("updateStrategy") or {}
    return found


def _name(kind: Kind, plain: Mapping[str, Any]) -> str:
    return f'{kind.options.singular} "{plain.get("metadata", {}).get("name", "")}"'


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    for condition in status.get("conditions") or []:
        if condition.get("type") == name:
            found: Mapping[str, Any] = condition
            return found
    return None


def _why(condition: Mapping[str, Any]) -> str:
    said = condition.get("message") or condition.get("reason")
    return f": {said}" if said else ""
