"""Jobs with and without numbers: come, rest, go on, fail, and go."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import Stage, Where
from kcore.sim.world import Job, Pod

_MOST = 4
# By its exit code a pod says that more of them would not help, or that it does not count.
FATAL_CODE, HARMLESS_CODE = 42, 43


@dataclass(slots=True)
class _Wanted:
    completions: int
    suspended: bool = False


class Jobs:
    """All of one story."""

    kind = Job.DESCRIPTOR.full_name

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """Another one."""
        if len(self._wanted) >= _MOST:
            done = [where for where in self.wanted() if self._how(where)]
            if not done:
                return
            self.forget(done[0])
            await self._stage.delete(self.kind, done[0])
        chance = self._stage.chance
        draw = chance.uniform(0, 1)
        code = 0 if draw < 0.7 else self._stage.pick([1, FATAL_CODE, HARMLESS_CODE])
        if code == HARMLESS_CODE:
            # Pods that never count would come for ever: it ends by its deadline.
            await self.make(1, 1, exit_code=code, deadline_seconds=60)
        else:
            await self.make(
                chance.integer(1, 5),
                chance.integer(1, 3),
                indexed=self._stage.strikes(0.5),
                exit_code=code,
                runs_seconds=chance.uniform(0.2, 8.0),
            )

    async def make(
        self,
        completions: int,
        parallelism: int,
        *,
        indexed: bool = False,
        exit_code: int = 0,
        runs_seconds: float = 2.0,
        deadline_seconds: int = 0,
    ) -> Where:
        """A new one."""
        where = self._stage.place("task")
        self._wanted[where] = _Wanted(completions)
        made = stages.shell(Job, where)
        spec = made.spec
        spec.completions, spec.parallelism = completions, parallelism
        spec.completion_mode = "Indexed" if indexed else "NonIndexed"
        spec.backoff_limit = 2
        if deadline_seconds:
            spec.active_deadline_seconds = deadline_seconds
        if exit_code in (FATAL_CODE, HARMLESS_CODE):
            for action, code in (("FailJob", FATAL_CODE), ("Ignore", HARMLESS_CODE)):
                rule = spec.pod_failure_policy.rules.add(action=action)
                rule.on_exit_codes.operator = "In"
                rule.on_exit_codes.values.append(code)
        fill(spec.template, where[1], exit_code, runs_seconds)
        await self._stage.create(made)
        return where

    async def change(self, where: Where) -> None:
        """Lets it rest, or go on."""
        await self.suspend(where, not self._wanted[where].suspended)

    async def suspend(self, where: Where, rests: bool) -> None:
        """Lets it rest, or go on."""
        self._wanted[where].suspended = rests
        made = stages.shell(Job, where)
        made.spec.suspend = rests
        await self._stage.patch(made, "spec.suspend")

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """None rests."""
        for where, wanted in sorted(self._wanted.items()):
            if wanted.suspended:
                await self.suspend(where, False)

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        for where, wanted in sorted(self._wanted.items()):
            said = f"job {'/'.join(where)}"
            found = self._stage.world.get(self.kind, *where)
            if not isinstance(found, Job):
                yield f"{said} is not there"
                continue
            how = worlds.finished(found)
            if not how:
                yield f"{said} has not ended"
            elif how == "Complete" and found.status.succeeded != wanted.completions:
                yield f"{said}: {found.status.succeeded} succeeded, {wanted.completions} wanted"
            yield from left_behind(self._stage, found)

    def _how(self, where: Where) -> str:
        found = self._stage.world.get(self.kind, *where)
        return worlds.finished(found) if isinstance(found, Job) else ""


def fill(into: stages.Template, app: str, exit_code: int, runs_seconds: float) -> None:
    """A pod that does its work and ends."""
    container = stages.template(into, app, "task:0")
    into.spec.restart_policy = "Never"
    container.env.add(name="SIM_RUNS_SECONDS", value=f"{runs_seconds:.3f}")
    container.env.add(name="SIM_EXIT_CODE", value=str(exit_code))


def left_behind(stage: Stage, job: Job) -> Iterator[str]:
    """What of an ended job still runs, or waits to be counted."""
    for pod in stage.world.owned(job.metadata.uid, Pod):
        if not worlds.is_over(pod) or pod.metadata.finalizers:
            yield f"pod {pod.metadata.name} is left of job {job.metadata.name}"
