"""CronJobs: jobs by the clock.

At most one job is made at a time, for the latest time of the schedule that has come and was not
served; what was missed before it stays missed. Making the job and noting its time is one
transaction, and the job's name says the time, so that no time is served twice.
It must not know pods.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.batch.v1 import cron_job_pb2, job_pb2

from kcore.controllers import job
from kcore.reconcile import owner, transaction
from kcore.reconcile.controller import (
    NOTHING,
    Controller,
    Key,
    Result,
    Said,
    its_manager,
    itself,
)
from kcore.reconcile.view import View
from kcore.wire import cron

CronJob = cron_job_pb2.CronJob
Job = job_pb2.Job

SCHEDULED_AT: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_MANY: Final = 100
_SUCCEEDED_KEPT: Final = 3
_FAILED_KEPT: Final = 1


def reconcile(view: View, key: Key, now: float, zone: tzinfo = UTC) -> Result:
    """What is to be done for one CronJob; `zone` is that of those who name none."""
    live = view.get(CronJob, *key)
    if live is None or live.metadata.HasField("deletion_timestamp"):
        return NOTHING
    uid = live.metadata.uid
    jobs = [
        each
        for each in view.list(Job, live.metadata.namespace, owner=uid)
        if owner.managed_by(each.metadata, uid)
    ]
    active = [each for each in jobs if not job.finished(each)]
    status = _status(live, jobs, active)
    wanted = _surplus(live, jobs)
    events = [*_seen(live, jobs)]
    again_at: float | None = None
    due: float | None = None
    if not live.spec.suspend:
        due, again_at, more = _due(live, jobs, active, now, zone)
        events += more
    if due is not None:
        if live.spec.concurrency_policy == "Replace":
            wanted += [transaction.delete(each) for each in active]
            del status.active[:]
        fresh = _job(live, due, zone)
        status.last_schedule_time.seconds = int(due)
        begun = transaction.create(fresh)
        wanted.append(transaction.atomic(begun, transaction.status(live, status)))
        named = fresh.metadata.name
        events.append(Said(live, "SuccessfulCreate", f"Created job {named}", of=wanted[-1]))
        failed = "Error creating job: "
        events.append(Said(live, "FailedCreate", failed, "Warning", wanted[-1], failed=True))
    elif status != live.status:
        wanted.append(transaction.status(live, status))
    return Result(tuple(wanted), again_at, tuple(events))


def _due(
    live: CronJob, jobs: Sequence[Job], active: Sequence[Job], now: float, zone: tzinfo
) -> tuple[float | None, float | None, list[Said]]:
    """The time that a job is to be made for, when to look again, and what there is to say."""
    spec = live.spec
    try:
        schedule = cron.parse(spec.schedule)
        where = ZoneInfo(spec.time_zone) if spec.HasField("time_zone") else zone
    except (ValueError, OSError) as error:
        # Refused when it is written; what is stored all the same must not stop the others.
        return None, None, [Said(live, "UnparseableSchedule", f"unparseable: {error}", "Warning")]
    since = float(
        live.status.last_schedule_time.seconds or live.metadata.creation_timestamp.seconds
    )
    again_at = schedule.next(max(now, since), where)
    if spec.HasField("starting_deadline_seconds"):
        since = max(since, now - spec.starting_deadline_seconds)
    found = schedule.latest(since, now, where)
    if found is None:
        return None, again_at, []
    due, count = found
    events: list[Said] = []
    if any(each.metadata.name == _name(live, due) for each in jobs):
        # Made already, by one who could not say so.
        return None, again_at, []
    if count > _MANY:
        said = (
            f"too many missed start times: {count}. Set or decrease "
            ".spec.startingDeadlineSeconds or check clock skew"
        )
        events.append(Said(live, "TooManyMissedTimes", said, "Warning"))
    if active and spec.concurrency_policy == "Forbid":
        said = (
            "Not starting job because prior execution is running and concurrency policy is Forbid"
        )
        events.append(Said(live, "JobAlreadyActive", said))
        return None, again_at, events
    return due, again_at, events


def _name(live: CronJob, due: float) -> str:
    return f"{live.metadata.name}-{int(due) // 60}"


def _job(live: CronJob, due: float, zone: tzinfo) -> Job:
    template = live.spec.job_template
    fresh = Job()
    fresh.spec.CopyFrom(template.spec)
    meta = fresh.metadata
    meta.name, meta.namespace = _name(live, due), live.metadata.namespace
    meta.labels.update(template.metadata.labels)
    meta.annotations.update(template.metadata.annotations)
    where = ZoneInfo(live.spec.time_zone) if live.spec.HasField("time_zone") else zone
    moment = datetime.fromtimestamp(due, where).isoformat()
    meta.annotations[SCHEDULED_AT] = moment.replace("+00:00", "Z")
    meta.owner_references.append(owner.reference(live))
    return fresh


def _status(
    live: CronJob, jobs: Iterable[Job], active: Iterable[Job]
) -> cron_job_pb2.CronJobStatus:
    status = cron_job_pb2.CronJobStatus()
    status.CopyFrom(live.status)
    del status.active[:]
    for each in active:
        reference = owner.about(each)
        # It changes with every step of the job, and says nothing here.
        reference.ClearField("resource_version")
        status.active.append(reference)
    # Those that are still there; older ones have been told before.
    completed = [
        each.status.completion_time.seconds for each in jobs if job.finished(each) == job.COMPLETE
    ]
    latest = max(completed, default=0)
    if latest > status.last_successful_time.seconds:
        status.last_successful_time.seconds = latest
    return status


def _seen(live: CronJob, jobs: Sequence[Job]) -> Iterable[Said]:
    """Of jobs that were active when it was last looked, and are over."""
    known = {each.uid for each in live.status.active}
    for each in jobs:
        how = job.finished(each)
        if how and each.metadata.uid in known:
            said = f"Saw completed job: {each.metadata.name}, condition: {how}"
            yield Said(live, "SawCompletedJob", said)


def _surplus(live: CronJob, jobs: Sequence[Job]) -> list[pb.Transaction]:
    """Jobs that are over and not worth keeping."""
    spec = live.spec
    found: list[pb.Transaction] = []
    for how, kept in (
        (
            job.COMPLETE,
            spec.successful_jobs_history_limit
            if spec.HasField("successful_jobs_history_limit")
            else _SUCCEEDED_KEPT,
        ),
        (
            job.FAILED,
            spec.failed_jobs_history_limit
            if spec.HasField("failed_jobs_history_limit")
            else _FAILED_KEPT,
        ),
    ):
        over = sorted((each for each in jobs if job.finished(each) == how), key=_age)
        for each in over[: max(0, len(over) - kept)]:
            if not each.metadata.HasField("deletion_timestamp"):
                found.append(transaction.delete(each))
    return found


def _age(each: Job) -> tuple[int, int, str]:
    meta = each.metadata
    return (each.status.start_time.seconds, meta.creation_timestamp.seconds, meta.name)


def controller(zone: tzinfo = UTC) -> Controller:
    """The controller; `zone` is that of schedules that name none."""
    return Controller(
        name="cronjob-controller",
        reads={CronJob: itself, Job: its_manager(CronJob)},
        writes=(Job.DESCRIPTOR.full_name, f"{CronJob.DESCRIPTOR.full_name}/status"),
        reconcile=lambda view, key, now: reconcile(view, key, now, zone),
    )
