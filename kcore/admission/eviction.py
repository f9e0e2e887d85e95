"""Admission of evictions: a pod that somebody wants gone, as far as budgets allow.

What is taken from a budget is written in the same transaction as the deletion, so that no two
evictions take the same. A pod that is over, or was on its way out before, takes nothing; one that
is not ready takes nothing either where the budget's policy or its surplus says so. Pure.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kcore.wire import selector
from kcore.wire.errors import ApiError, Reason

_BUDGET = "kcore.policy.v1.PodDisruptionBudget"
_RETRY_SECONDS = 10.0
# Evicted pods that a budget waits for to be on their way.
_MOST_DISRUPTED = 2000

# All objects of a kind in a namespace, as they are in this transaction.
Others = Callable[[str, str], Iterable[Any]]


def admit(obj: Any, others: Others, time: float) -> list[Any]:
    """The budgets as they are after the eviction. EXHAUSTED where one has nothing left."""
    if obj.metadata.HasField("deletion_timestamp") or obj.status.phase in ("Succeeded", "Failed"):
        return []
    changed = []
    if obj.status.phase != "Pending":
        for budget in others(_BUDGET, obj.metadata.namespace):
            if _covers(budget, obj) and _take(budget, obj, time):
                changed.append(budget)
    _mark(obj, time)
    return changed


def _covers(budget: Any, pod: Any) -> bool:
    if not budget.spec.HasField("selector"):
        return False
    return selector.from_message(budget.spec.selector).matches(dict(pod.metadata.labels))


def _take(budget: Any, pod: Any, time: float) -> bool:
    """Takes one disruption; False where none has to be taken."""
    status = budget.status
    name = budget.metadata.name
    if status.observed_generation < budget.metadata.generation:
        raise _not_now(f"The disruption budget {name} is still being processed by the server.")
    if not _is_ready(pod):
        if budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
            return False
        if status.current_healthy >= status.desired_healthy > 0:
            return False
    if pod.metadata.name in status.disrupted_pods:
        # Asked for again before it was on its way.
        return False
    if status.disruptions_allowed <= 0:
        raise _not_now(
            "Cannot evict pod as it would violate the pod's disruption budget: the disruption "
            f"budget {name} needs {status.desired_healthy} healthy pods and has "
            f"{status.current_healthy} currently"
        )
    if len(status.disrupted_pods) >= _MOST_DISRUPTED:
        raise _not_now(f"The disruption budget {name} waits for too many evicted pods.")
    status.disruptions_allowed -= 1
    status.disrupted_pods[pod.metadata.name].seconds = int(time)
    return True


def _is_ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)


def _mark(pod: Any, time: float) -> None:
    """The pod says why it goes."""
    found = next((one for one in pod.status.conditions if one.type == "DisruptionTarget"), None)
    if found is None:
        found = pod.status.conditions.add()
        found.type = "DisruptionTarget"
    if found.status != "True":
        found.status = "True"
        found.last_transition_time.seconds = int(time)
    found.reason, found.message = "EvictionByEvictionAPI", "Eviction API: evicting"


def _not_now(said: str) -> ApiError:
    return ApiError(Reason.EXHAUSTED, said, retry_seconds=_RETRY_SECONDS)
