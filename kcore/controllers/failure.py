"""What the end of a job's pod means: the job's podFailurePolicy, and how long to wait. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kcore_api.kcore.batch.v1 import job_pb2
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.controllers import pod

FAIL_JOB, FAIL_INDEX, IGNORE, COUNT = "FailJob", "FailIndex", "Ignore", "Count"

_FIRST_DELAY_SECONDS: Final = 10.0
_MOST_DELAY_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means, and in words why, where a rule said so."""

    action: str
    why: str = ""


def judge(policy: job_pb2.PodFailurePolicy, failed: pod_pb2.Pod) -> Verdict:
    """The action of the first rule that matches; a failure that none matches counts."""
    for number, rule in enumerate(policy.rules):
        why = ""
        if rule.HasField("on_exit_codes"):
            why = _by_exit_code(rule.on_exit_codes, failed)
        else:
            why = _by_condition(rule.on_pod_conditions, failed)
        if why:
            return Verdict(rule.action, f"{why} matching {rule.action} rule at index {number}")
    return Verdict(COUNT)


def delay_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    if failures <= 0:
        return 0.0
    return min(_MOST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 16))


def ended_at(ended: pod_pb2.Pod) -> float:
    """When a pod ended, as well as its status can tell."""
    times = [
        status.state.terminated.finished_at.seconds
        for status in (*ended.status.container_statuses, *ended.status.init_container_statuses)
        if status.state.HasField("terminated")
    ]
    if any(times):
        return float(max(times))
    if ended.metadata.HasField("deletion_timestamp"):
        grace = ended.metadata.deletion_grace_period_seconds
        return float(ended.metadata.deletion_timestamp.seconds - grace)
    unready = pod.condition(ended, "Ready")
    if unready is not None and unready.last_transition_time.seconds:
        return float(unready.last_transition_time.seconds)
    return float(ended.metadata.creation_timestamp.seconds)


def _by_exit_code(
    asked: job_pb2.PodFailurePolicyOnExitCodesRequirement, failed: pod_pb2.Pod
) -> str:
    for name, code in _exit_codes(failed):
        if asked.container_name and name != asked.container_name:
            continue
        if code and (code in asked.values) is (asked.operator == "In"):
            meta = failed.metadata
            return (
                f"Container {name} for pod {meta.namespace}/{meta.name} failed with exit code "
                f"{code}"
            )
    return ""


def _exit_codes(failed: pod_pb2.Pod) -> Iterator[tuple[str, int]]:
    for status in (*failed.status.init_container_statuses, *failed.status.container_statuses):
        if status.state.HasField("terminated"):
            yield status.name, status.state.terminated.exit_code


def _by_condition(
    patterns: Sequence[job_pb2.PodFailurePolicyOnPodConditionsPattern], failed: pod_pb2.Pod
) -> str:
    for pattern in patterns:
        found = pod.condition(failed, pattern.type)
        if found is not None and found.status == (pattern.status or "True"):
            meta = failed.metadata
            return f"Pod {meta.namespace}/{meta.name} has condition {pattern.type}"
    return ""
