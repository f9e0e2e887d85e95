"""CronJobs: one each minute; they rest, go on, and go."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import job
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import Stage, Where
from kcore.sim.world import CronJob, Job

_MOST = 2
_KEPT = 2


@dataclass(slots=True)
class _Wanted:
    suspended: bool = False


class CronJobs:
    """All of one story."""

    kind = CronJob.DESCRIPTOR.full_name

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """Another one."""
        if len(self._wanted) < _MOST:
            policy = self._stage.pick(["Allow", "Forbid", "Replace"])
            # Some of its jobs are still at it when the next one is due.
            await self.make(policy, self._stage.pick([1.0, 30.0, 80.0]))

    async def make(self, policy: str, runs_seconds: float) -> Where:
        """A new one."""
        where = self._stage.place("clock")
        self._wanted[where] = _Wanted()
        made = stages.shell(CronJob, where)
        spec = made.spec
        spec.schedule, spec.concurrency_policy = "* * * * *", policy
        spec.successful_jobs_history_limit = spec.failed_jobs_history_limit = _KEPT
        spec.job_template.spec.backoff_limit = 1
        job.fill(spec.job_template.spec.template, where[1], 0, runs_seconds)
        await self._stage.create(made)
        return where

    async def change(self, where: Where) -> None:
        """Lets it rest, or go on."""
        await self.suspend(where, not self._wanted[where].suspended)

    async def suspend(self, where: Where, rests: bool) -> None:
        """Lets it rest, or go on."""
        self._wanted[where].suspended = rests
        made = stages.shell(CronJob, where)
        made.spec.suspend = rests
        await self._stage.patch(made, "spec.suspend")

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """All rest: they would never come to it."""
        for where, wanted in sorted(self._wanted.items()):
            if not wanted.suspended:
                await self.suspend(where, True)

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        world = self._stage.world
        for where, wanted in sorted(self._wanted.items()):
            said = f"cron job {'/'.join(where)}"
            found = world.get(self.kind, *where)
            if not isinstance(found, CronJob):
                yield f"{said} is not there"
                continue
            if not wanted.suspended:
                continue
            jobs = world.owned(found.metadata.uid, Job)
            ends = [worlds.finished(each) for each in jobs]
            if not all(ends):
                yield f"{said}: {ends.count('')} jobs have not ended"
            if max(ends.count("Complete"), ends.count("Failed")) > _KEPT:
                yield f"{said}: {len(ends)} jobs are kept"
            if found.status.active:
                yield f"{said}: {len(found.status.active)} are active in its status"
            for each in jobs:
                yield from job.left_behind(self._stage, each)
