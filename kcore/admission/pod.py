"""Admission of pods: account, tolerations, priority, requests, quality of service, phase.

Only at creation, but for the tolerations, which may not get fewer, and what an update left out and
may not change. Pods that mirror a kubelet's own files get no account. Pure.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kcore.wire import quantity
from kcore.wire.errors import Violation

DEFAULT_ACCOUNT = "default"
MIRROR_NOTE = "kubernetes.io/config.mirror"
# How long a pod bears a node that is not ready or can't be reached.
PATIENCE_SECONDS = 300
_NODE_TROUBLES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
PRIORITIES = {
    "": 0,
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}
_ACCOUNT_KIND = "kcore.core.v1.ServiceAccount"
# Only these two make a quality of service.
_COUNTED = ("cpu", "memory")

Read = Callable[[str, str, str], Any]


def admit(obj: Any, old: Any, read: Read) -> list[Violation]:
    """Fills in what a pod has without saying so."""
    if old is not None:
        return _update(obj, old)
    violations = [*_account(obj, read), *_priority(obj)]
    _tolerate(obj)
    for container in _containers(obj):
        _request_limits(container)
        if obj.spec.host_network:
            for port in container.ports:
                if not port.host_port:
                    port.host_port = port.container_port
    if not obj.spec.HasField("enable_service_links"):
        obj.spec.enable_service_links = True
    obj.status.phase = "Pending"
    obj.status.qos_class = quality(obj)
    return violations


def _update(obj: Any, old: Any) -> list[Violation]:
    for field in (
        "service_account_name",
        "service_account",
        "priority",
        "preemption_policy",
        "enable_service_links",
        "node_name",
    ):
        # What a manifest does not say of these was filled in at creation and stays.
        if old.spec.HasField(field) and not obj.spec.HasField(field):
            setattr(obj.spec, field, getattr(old.spec, field))
    for container, before in zip(_containers(obj), _containers(old), strict=False):
        if container.name == before.name:
            _request_limits(container)
    _tolerate(obj)
    kept = {_spelled(each) for each in obj.spec.tolerations}
    if all(_spelled(each) in kept for each in old.spec.tolerations):
        return []
    return [Violation("spec.tolerations", "existing toleration can not be modified or removed")]


def _spelled(toleration: Any) -> tuple[object, ...]:
    # How long may be changed.
    return (toleration.key, toleration.operator, toleration.value, toleration.effect)


def _account(obj: Any, read: Read) -> Iterable[Violation]:
    spec = obj.spec
    if MIRROR_NOTE in obj.metadata.annotations:
        if spec.service_account_name:
            yield Violation("spec.serviceAccountName", "a mirror pod may not have one")
        return
    name = spec.service_account_name or spec.service_account or DEFAULT_ACCOUNT
    spec.service_account_name = name
    spec.service_account = name
    account = read(_ACCOUNT_KIND, obj.metadata.namespace, name)
    if account is None:
        # Every namespace is about to have the default one: no need to wait for it.
        if name != DEFAULT_ACCOUNT:
            yield Violation(
                "spec.serviceAccountName",
                f"error looking up service account {obj.metadata.namespace}/{name}: "
                f'serviceaccount "{name}" not found',
            )
        return
    if not spec.image_pull_secrets:
        for secret in account.image_pull_secrets:
            spec.image_pull_secrets.add(name=secret.name)


def _priority(obj: Any) -> Iterable[Violation]:
    spec = obj.spec
    resolved = PRIORITIES.get(spec.priority_class_name)
    if resolved is None:
        yield Violation(
            "spec.priorityClassName",
            f"no PriorityClass with name {spec.priority_class_name} was found",
        )
        return
    if spec.HasField("priority") and spec.priority != resolved:
        yield Violation(
            "spec.priority",
            f"the integer value of priority ({spec.priority}) must not be provided in pod spec; "
            f'{resolved} is what the class "{spec.priority_class_name}" gives',
        )
    spec.priority = resolved
    if not spec.preemption_policy:
        spec.preemption_policy = "PreemptLowerPriority"


def _tolerate(obj: Any) -> None:
    """Bears troubles of its node for a while, unless it says how long."""
    for key in _NODE_TROUBLES:
        if not any(
            each.key in ("", key) and each.effect in ("", "NoExecute")
            for each in obj.spec.tolerations
        ):
            obj.spec.tolerations.add(
                key=key,
                operator="Exists",
                effect="NoExecute",
                toleration_seconds=PATIENCE_SECONDS,
            )


def _containers(obj: Any) -> list[Any]:
    return [*obj.spec.init_containers, *obj.spec.containers]


def _request_limits(container: Any) -> None:
    """Who may use so much and does not say what he needs, needs so much."""
    resources = container.resources
    for name in sorted(resources.limits):
        if name not in resources.requests:
            resources.requests[name].CopyFrom(resources.limits[name])


def quality(obj: Any) -> str:
    """Guaranteed: every container has both limits and requests just those; BestEffort: nothing."""
    guaranteed = True
    anything = False
    for container in _containers(obj):
        requests = _amounts(container.resources.requests)
        limits = _amounts(container.resources.limits)
        anything = anything or bool(requests or limits)
        if len(limits) < len(_COUNTED) or any(limits.get(k) != v for k, v in requests.items()):
            guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(amounts: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in _COUNTED:
        if name in amounts:
            try:
                amount = quantity.parse(amounts[name].string)
            except ValueError:
                # The field's own format refuses it, with its path.
                continue
            if amount > 0:
                found[name] = amount
    return found
