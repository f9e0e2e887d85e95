"""Jobs: pods that run to their end, so many times.

Every pod of a job carries a finalizer until it has been counted. Counting it in the job's status
and taking the finalizer away is one transaction, so each end counts once, whatever crashes and
whichever answer is lost. A job ends in two steps: first it is said why (SuccessCriteriaMet or
FailureTarget) and the pods that still run are deleted; when none is left, it is Complete or Failed.
What the failure of a pod means is `failure`. It must not know cron jobs, nor how pods are run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.batch.v1 import job_pb2
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.controllers import adoption, failure, indexes, pod
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said, itself
from kcore.reconcile.view import View

Job = job_pb2.Job
Pod = pod_pb2.Pod
Status = job_pb2.JobStatus

TRACKING: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"
SUCCEEDING, FAILING = "SuccessCriteriaMet", "FailureTarget"

_CONTROLLER: Final = "kcore.dev/job-controller"
# What Kubernetes' own is called in managedBy.
_KNOWN_CONTROLLERS: Final = ("", _CONTROLLER, "kubernetes.io/job-controller")
# Pods of one job that are created, deleted or counted in one round.
_MOST_AT_ONCE: Final = 200
_MESSAGES: Final = {
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
    "DeadlineExceeded": "Job was active longer than specified deadline",
    "FailedIndexes": "Job has failed indexes",
    "MaxFailedIndexesExceeded": ("Job has exceeded the specified maximal number of failed indexes"),
    "CompletionsReached": "Reached expected number of succeeded pods",
}


@dataclass(slots=True)
class _Seen:
    """A job, its pods, and what is to become of it."""

    view: View
    live: Job
    now: float
    status: Status
    # Neither over nor on their way out; on their way out; over.
    active: list[Pod] = field(default_factory=list)
    going: list[Pod] = field(default_factory=list)
    over: list[Pod] = field(default_factory=list)
    # Those that this round counts, or that count no more: their finalizer goes with the status.
    counted: list[Pod] = field(default_factory=list)
    completed: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    transactions: list[pb.Transaction] = field(default_factory=list)
    events: list[Said] = field(default_factory=list)
    again_at: float | None = None

    @property
    def indexed(self) -> bool:
        """Whether its pods have numbers."""
        return self.live.spec.completion_mode == "Indexed"

    @property
    def replaces_only_failed(self) -> bool:
        """Whether a pod that is on its way out still takes a place."""
        return self.live.spec.pod_replacement_policy == "Failed"

    def later(self, moment: float) -> None:
        """Looks again then."""
        if moment > self.now and (self.again_at is None or moment < self.again_at):
            self.again_at = moment

    def has(self, type_: str) -> job_pb2.JobCondition | None:
        """The condition of this type, if it is true."""
        for each in self.status.conditions:
            if each.type == type_ and each.status == "True":
                return each
        return None

    def say(self, type_: str, reason: str, message: str, status: str = "True") -> None:
        """Sets a condition."""
        for each in self.status.conditions:
            if each.type == type_:
                if each.status != status:
                    each.last_transition_time.seconds = int(self.now)
                each.status, each.reason, each.message = status, reason, message
                break
        else:
            each = self.status.conditions.add(
                type=type_, status=status, reason=reason, message=message
            )
            each.last_transition_time.seconds = int(self.now)
        each.last_probe_time.seconds = int(self.now)


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one Job."""
    live = view.get(Job, *key)
    if live is None:
        return Result(tuple(_released(_orphans(view, key, ""))))
    if live.spec.managed_by not in _KNOWN_CONTROLLERS:
        return NOTHING
    strays = _orphans(view, key, live.metadata.uid)
    if strays:
        return Result(tuple(_released(strays)))
    matching = adoption.selects(live.spec.selector)
    if matching is None:
        return NOTHING
    claimed = adoption.claim(view, live, matching, Pod)
    if claimed.transactions:
        return Result(claimed.transactions)
    if live.metadata.HasField("deletion_timestamp"):
        return Result(tuple(_released(_tracked(claimed.children))))
    seen = _look(view, live, claimed.children, now)
    if seen.has(COMPLETE) or seen.has(FAILED):
        return _clear(seen)
    _start(seen)
    _count(seen)
    _decide(seen)
    _run(seen)
    return _finish(seen)


def finished(live: Job) -> str:
    """Complete, Failed or "": how it ended."""
    for each in live.status.conditions:
        if each.type in (COMPLETE, FAILED) and each.status == "True":
            return each.type
    return ""


# What there is.


def _look(view: View, live: Job, pods: Sequence[Pod], now: float) -> _Seen:
    status = Status()
    status.CopyFrom(live.status)
    seen = _Seen(view, live, now, status)
    for each in pods:
        deleting = each.metadata.HasField("deletion_timestamp")
        if each.status.phase in pod.OVER or (deleting and not each.spec.node_name):
            seen.over.append(each)
        elif deleting:
            seen.going.append(each)
        else:
            seen.active.append(each)
    if seen.indexed:
        below = live.spec.completions
        seen.completed = indexes.parse(status.completed_indexes, below)
        seen.failed = indexes.parse(status.failed_indexes, below)
    return seen


def _tracked(pods: Iterable[Pod]) -> list[Pod]:
    return [each for each in pods if TRACKING in each.metadata.finalizers]


def _orphans(view: View, key: Key, uid: str) -> list[Pod]:
    """Pods that wait to be counted by a job of this name that is gone."""
    return [
        each
        for each in view.list(Pod, index=("job", "/".join(key)))
        if not owner.managed_by(each.metadata, uid) and TRACKING in each.metadata.finalizers
    ]


def _by_job(each: Pod) -> Iterator[str]:
    """Index: pods that carry the finalizer, by their job's name."""
    found = owner.manager(each.metadata)
    if found is not None and found.kind == "Job" and TRACKING in each.metadata.finalizers:
        yield f"{each.metadata.namespace}/{found.name}"


def index_of(each: Pod) -> int | None:
    """The pod's number."""
    said = each.metadata.annotations.get(INDEX, "")
    return int(said) if said.isdecimal() and len(said) < 10 else None


# What has become of its pods.


def _start(seen: _Seen) -> None:
    live, status = seen.live, seen.status
    if live.spec.suspend:
        if seen.has(SUSPENDED) is None and not _is_ending(seen):
            seen.say(SUSPENDED, "JobSuspended", "Job suspended")
            status.ClearField("start_time")
            seen.events.append(Said(live, "Suspended", "Job suspended"))
    elif seen.has(SUSPENDED) is not None:
        seen.say(SUSPENDED, "JobResumed", "Job resumed", "False")
        seen.events.append(Said(live, "Resumed", "Job resumed"))
    if not live.spec.suspend and not status.HasField("start_time"):
        status.start_time.seconds = int(seen.now)


def _is_ending(seen: _Seen) -> bool:
    return seen.has(SUCCEEDING) is not None or seen.has(FAILING) is not None


def _count(seen: _Seen) -> None:
    """Counts what has ended and was not counted before, as far as one transaction holds it."""
    succeeded = failed = 0
    completed, lost = set(seen.completed), set(seen.failed)
    ended = [*seen.over, *(() if seen.replaces_only_failed else seen.going)]
    for each in _tracked(ended)[:_MOST_AT_ONCE]:
        seen.counted.append(each)
        number = index_of(each)
        if seen.indexed and (number is None or number >= seen.live.spec.completions):
            continue
        if each.status.phase == "Succeeded":
            if not seen.indexed:
                succeeded += 1
            elif number is not None:
                completed.add(number)
            continue
        verdict = _verdict(seen, each)
        if verdict.action == failure.IGNORE:
            continue
        failed += 1
        if verdict.action == failure.FAIL_JOB and not _is_ending(seen):
            seen.say(FAILING, "PodFailurePolicy", verdict.why)
        limit = seen.live.spec.backoff_limit_per_index
        is_lost = verdict.action == failure.FAIL_INDEX or _failures(each) >= limit
        if is_lost and number is not None and seen.live.spec.HasField("backoff_limit_per_index"):
            lost.add(number)
    seen.completed, seen.failed = frozenset(completed), frozenset(lost - completed)
    status = seen.status
    if seen.indexed:
        if seen.completed or status.completed_indexes:
            status.completed_indexes = indexes.text(seen.completed)
        if seen.live.spec.HasField("backoff_limit_per_index"):
            status.failed_indexes = indexes.text(seen.failed)
        succeeded = len(seen.completed) - status.succeeded
    if succeeded:
        status.succeeded += succeeded
    if failed:
        status.failed += failed


def _verdict(seen: _Seen, each: Pod) -> failure.Verdict:
    return failure.judge(seen.live.spec.pod_failure_policy, each)


def _failures(each: Pod) -> int:
    """How often its index had failed before."""
    said = each.metadata.annotations.get(FAILURES, "0")
    return int(said) if said.isdecimal() else 0


# Whether it is done.


def _decide(seen: _Seen) -> None:
    if not _is_ending(seen):
        why = _failed_for(seen)
        if why:
            seen.say(FAILING, why, _MESSAGES[why])
        elif not seen.live.spec.suspend:
            _decide_success(seen)
    if not _is_ending(seen):
        return
    uncounted = {each.metadata.uid for each in _tracked(seen.over)}
    if seen.active or seen.going or uncounted - {each.metadata.uid for each in seen.counted}:
        return
    failing = seen.has(FAILING)
    if failing is not None:
        seen.say(FAILED, failing.reason, failing.message)
        said = Said(seen.live, failing.reason, failing.message, "Warning")
        seen.events.append(said)
    else:
        succeeding = seen.has(SUCCEEDING)
        assert succeeding is not None
        seen.say(COMPLETE, succeeding.reason, succeeding.message)
        seen.status.completion_time.seconds = int(seen.now)
        seen.events.append(Said(seen.live, "Completed", "Job completed"))


def _failed_for(seen: _Seen) -> str:
    spec, status = seen.live.spec, seen.status
    if spec.HasField("active_deadline_seconds") and status.HasField("start_time"):
        ends = status.start_time.seconds + spec.active_deadline_seconds
        if not spec.suspend and seen.now >= ends:
            return "DeadlineExceeded"
        seen.later(ends)
    if status.failed > spec.backoff_limit or _restarts_too_often(seen):
        return "BackoffLimitExceeded"
    if spec.HasField("backoff_limit_per_index"):
        if spec.HasField("max_failed_indexes") and len(seen.failed) > spec.max_failed_indexes:
            return "MaxFailedIndexesExceeded"
        if seen.failed and len(seen.failed | seen.completed) >= spec.completions:
            return "FailedIndexes"
    return ""


def _restarts_too_often(seen: _Seen) -> bool:
    """Under OnFailure, containers that restart are failures, too."""
    spec = seen.live.spec
    if spec.template.spec.restart_policy != "OnFailure":
        return False
    restarts = sum(
        status.restart_count
        for each in seen.active
        for status in (*each.status.init_container_statuses, *each.status.container_statuses)
    )
    return restarts > 0 and restarts >= spec.backoff_limit


def _decide_success(seen: _Seen) -> None:
    spec, status = seen.live.spec, seen.status
    if spec.HasField("success_policy"):
        for number, rule in enumerate(spec.success_policy.rules):
            if _is_enough(rule, seen.completed, spec.completions):
                said = f"Matched rules at index {number}"
                seen.say(SUCCEEDING, "SuccessPolicy", said)
                return
    if spec.HasField("completions"):
        done = status.succeeded >= spec.completions
    else:
        # A queue of work: one has found it empty, and the others have ended.
        done = status.succeeded > 0 and not seen.active and not seen.going
    if done:
        reason = "CompletionsReached"
        seen.say(SUCCEEDING, reason, _MESSAGES[reason])


def _is_enough(
    rule: job_pb2.SuccessPolicyRule, completed: frozenset[int], completions: int
) -> bool:
    meant = frozenset(range(completions))
    if rule.succeeded_indexes:
        meant = indexes.parse(rule.succeeded_indexes, completions)
    needed = rule.succeeded_count if rule.HasField("succeeded_count") else len(meant)
    return len(completed & meant) >= needed


# Which pods are to run.


def _run(seen: _Seen) -> None:
    live = seen.live
    if _is_ending(seen) or live.spec.suspend:
        for doomed in _least_missed(seen.active)[:_MOST_AT_ONCE]:
            # An end that was brought about counts where the job has failed, not where it rests.
            _delete(seen, doomed, counts=seen.has(FAILING) is not None)
        return
    wanted = _wanted(seen)
    there = len(seen.active) + (len(seen.going) if seen.replaces_only_failed else 0)
    stray = _without_index(seen)
    for doomed in stray:
        _delete(seen, doomed, counts=False)
    there -= len(stray)
    if there > wanted:
        surplus = [each for each in _least_missed(seen.active) if each not in stray]
        for doomed in surplus[: min(there - wanted, _MOST_AT_ONCE)]:
            _delete(seen, doomed, counts=False)
    elif there < wanted:
        count = min(wanted - there, _MOST_AT_ONCE)
        if seen.indexed:
            _create_indexed(seen, count)
        else:
            _create(seen, count)


def _wanted(seen: _Seen) -> int:
    """How many pods should run now."""
    spec, status = seen.live.spec, seen.status
    parallelism = spec.parallelism if spec.HasField("parallelism") else 1
    if not spec.HasField("completions"):
        # Once one has succeeded, the others are left to end.
        return len(seen.active) if status.succeeded else parallelism
    left = spec.completions - status.succeeded - len(seen.failed)
    return max(0, min(parallelism, left))


def _without_index(seen: _Seen) -> list[Pod]:
    """Of an Indexed job, pods whose number is none, is done, or is somebody else's too."""
    if not seen.indexed:
        return []
    taken: set[int] = set()
    strays: list[Pod] = []
    for each in sorted(seen.active, key=_age):
        number = index_of(each)
        done = number is None or number >= seen.live.spec.completions
        if number is None or done or number in taken or number in seen.completed | seen.failed:
            strays.append(each)
        else:
            taken.add(number)
    return strays


def _age(each: Pod) -> tuple[int, str]:
    return (each.metadata.creation_timestamp.seconds, each.metadata.name)


def _least_missed(pods: Iterable[Pod]) -> list[Pod]:
    """Those that have done least first."""

    def rank(each: Pod) -> tuple[object, ...]:
        since = pod.ready_since(each)
        return (
            bool(each.spec.node_name),
            each.status.phase == "Running",
            since is not None,
            -(since or 0.0),
            -each.metadata.creation_timestamp.seconds,
            each.metadata.uid,
        )

    return sorted(pods, key=rank)


def _create(seen: _Seen, count: int) -> None:
    waits_until = _backs_off_until(seen, [*seen.over, *seen.going])
    if waits_until > seen.now:
        seen.later(waits_until)
        return
    pattern, prefix = _pattern(seen.live), f"{seen.live.metadata.name}-"
    for given in _names(seen, prefix, count):
        fresh = Pod()
        fresh.CopyFrom(pattern)
        fresh.metadata.name, fresh.metadata.generate_name = given, prefix
        _made(seen, fresh)


def _create_indexed(seen: _Seen, count: int) -> None:
    live = seen.live
    running = {index_of(each) for each in seen.active}
    if seen.replaces_only_failed:
        running |= {index_of(each) for each in seen.going}
    ended: dict[int | None, list[Pod]] = {}
    for each in (*seen.over, *seen.going):
        ended.setdefault(index_of(each), []).append(each)
    per_index = live.spec.HasField("backoff_limit_per_index")
    if not per_index:
        waits_until = _backs_off_until(seen, [*seen.over, *seen.going])
        if waits_until > seen.now:
            seen.later(waits_until)
            return
    pattern = _pattern(live)
    for number in range(live.spec.completions):
        if count <= 0:
            return
        if number in running or number in seen.completed or number in seen.failed:
            continue
        failures = 0
        if per_index:
            before = [each for each in ended.get(number, ()) if each.status.phase != "Succeeded"]
            counted = [e for e in before if _verdict(seen, e).action != failure.IGNORE]
            failures = max((_failures(each) + 1 for each in counted), default=0)
            last = max((failure.ended_at(each) for each in before), default=0.0)
            waits_until = last + failure.delay_seconds(failures)
            if before and waits_until > seen.now:
                seen.later(waits_until)
                continue
        count -= 1
        fresh = Pod()
        fresh.CopyFrom(pattern)
        _number(seen, fresh, number, failures if per_index else None)
        _made(seen, fresh)


def _backs_off_until(seen: _Seen, ended: Sequence[Pod]) -> float:
    """When the next pod may be made: later the more have failed since one last succeeded."""
    succeeded = [failure.ended_at(each) for each in ended if each.status.phase == "Succeeded"]
    since = max(succeeded, default=0.0)
    failures = [
        failure.ended_at(each)
        for each in ended
        if each.status.phase == "Failed" and _verdict(seen, each).action != failure.IGNORE
    ]
    recent = [moment for moment in failures if moment > since or not succeeded]
    if not recent:
        return 0.0
    return max(recent) + failure.delay_seconds(len(recent))


def _pattern(live: Job) -> Pod:
    """What all its pods have."""
    template = live.spec.template
    pattern = Pod(spec=template.spec)
    meta = pattern.metadata
    meta.namespace = live.metadata.namespace
    meta.labels.update(template.metadata.labels)
    meta.annotations.update(template.metadata.annotations)
    meta.finalizers.extend(template.metadata.finalizers)
    meta.finalizers.append(TRACKING)
    meta.owner_references.append(owner.reference(live))
    return pattern


def _number(seen: _Seen, fresh: Pod, number: int, failures: int | None) -> None:
    """Gives a pod its number, where programs look for it."""
    live = seen.live
    prefix = f"{live.metadata.name}-{number}-"
    meta = fresh.metadata
    letters = name.letters(live.metadata.uid, seen.view.revision, number)
    meta.name, meta.generate_name = f"{prefix[:58]}{letters}", prefix
    meta.annotations[INDEX] = meta.labels[INDEX] = str(number)
    if failures is not None:
        meta.annotations[FAILURES] = str(failures)
    fresh.spec.hostname = f"{live.metadata.name}-{number}"[:63]
    for container in (*fresh.spec.init_containers, *fresh.spec.containers):
        if not any(each.name == "JOB_COMPLETION_INDEX" for each in container.env):
            said = container_pb2.EnvVar(name="JOB_COMPLETION_INDEX")
            said.value_from.field_ref.field_path = f"metadata.annotations['{INDEX}']"
            container.env.append(said)


def _names(seen: _Seen, prefix: str, count: int) -> Iterator[str]:
    """Names that nobody has."""
    ordinal, meta = 0, seen.live.metadata
    while count:
        given = name.child(prefix, meta.uid, seen.view.revision, ordinal)
        ordinal += 1
        if seen.view.get(Pod, meta.namespace, given) is None:
            count -= 1
            yield given


def _made(seen: _Seen, fresh: Pod) -> None:
    guards = transaction.same(transaction.ref(seen.live), seen.live.metadata)
    asked = transaction.create(fresh, guards=guards)
    seen.transactions.append(asked)
    seen.active.append(fresh)
    _said(seen, "Create", "Creat", fresh.metadata.name, asked)


def _delete(seen: _Seen, doomed: Pod, *, counts: bool) -> None:
    asked = transaction.delete(doomed)
    if not counts:
        # With its finalizer it loses its count, in the same step.
        asked = transaction.atomic(_untracked(doomed), asked)
    seen.going.append(doomed)
    seen.active.remove(doomed)
    seen.transactions.append(asked)
    _said(seen, "Delete", "Delet", doomed.metadata.name, asked)


def _said(seen: _Seen, done: str, stem: str, of: str, asked: pb.Transaction) -> None:
    seen.events.append(Said(seen.live, f"Successful{done}", f"{stem}ed pod: {of}", of=asked))
    failed = f"Error {stem.lower()}ing: "
    seen.events.append(Said(seen.live, f"Failed{done}", failed, "Warning", asked, failed=True))


# Writing it down.


def _finish(seen: _Seen) -> Result:
    status = seen.status
    # Those that are only just asked for are in no view yet.
    there = [each for each in seen.active if each.metadata.uid]
    ready = sum(seen.view.fact(pod.facts, each).ready_since is not None for each in there)
    _set(status, "active", len(seen.active))
    _set(status, "ready", ready, keep_zero=True)
    _set(status, "terminating", len(seen.going), keep_zero=True)
    if seen.counted:
        # All of it or nothing: what is counted can't be counted again. The status must be the one
        # that it was added to.
        fresh = Job()
        fresh.status.CopyFrom(status)
        counted = transaction.patch(
            seen.live, fresh, ["status"], unchanged=True, subresource="status"
        )
        untracked = [_untracked(each) for each in seen.counted]
        seen.transactions.insert(0, transaction.atomic(counted, *untracked))
    elif status != seen.live.status:
        seen.transactions.insert(0, transaction.status(seen.live, status))
    return Result(tuple(seen.transactions), seen.again_at, tuple(seen.events))


def _set(status: Status, field_name: str, value: int, *, keep_zero: bool = False) -> None:
    if value or keep_zero:
        setattr(status, field_name, value)
    else:
        status.ClearField(field_name)


def _clear(seen: _Seen) -> Result:
    """After its end: nothing is counted any more, and in time it goes itself."""
    wanted = list(_released(_tracked((*seen.active, *seen.going, *seen.over))))
    wanted += [transaction.delete(each) for each in seen.active]
    again_at = None
    if seen.live.spec.HasField("ttl_seconds_after_finished"):
        how = seen.has(COMPLETE) or seen.has(FAILED)
        assert how is not None
        ends = how.last_transition_time.seconds + seen.live.spec.ttl_seconds_after_finished
        if seen.now >= ends:
            wanted.append(transaction.delete(seen.live))
        else:
            again_at = float(ends)
    return Result(tuple(wanted), again_at)


def _released(pods: Iterable[Pod]) -> Iterator[pb.Transaction]:
    for each in pods:
        yield _untracked(each)


def _untracked(each: Pod) -> pb.Transaction:
    fresh = Pod()
    kept = [finalizer for finalizer in each.metadata.finalizers if finalizer != TRACKING]
    fresh.metadata.finalizers.extend(kept)
    return transaction.patch(each, fresh, ["metadata.finalizers"], unchanged=True)


CONTROLLER = Controller(
    name="job-controller",
    reads={
        Job: itself,
        Pod: adoption.concerned(Job),
    },
    writes=(
        Pod.DESCRIPTOR.full_name,
        Job.DESCRIPTOR.full_name,
        f"{Job.DESCRIPTOR.full_name}/status",
    ),
    reconcile=reconcile,
    indexes={Pod: {"orphan": adoption.orphan, "job": _by_job}},
)
