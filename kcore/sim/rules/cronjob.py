"""CronJobs: one job for one time, later times after earlier ones, no bursts."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from kcore.kernel.record import Record, Verb
from kcore.sim import world as worlds
from kcore.sim.world import CronJob, Job, World

_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# Stories have but one schedule.
_EVERY_SECONDS = 60.0
_MANAGER = "cronjob-controller"


@dataclass(slots=True)
class _Page:
    times: list[str] = field(default_factory=list)
    # Moments at which jobs were made since the clock was last set, and how often it was.
    made: list[float] = field(default_factory=list)
    jumps: int = 0


class Diary:
    """Which jobs were made for which times."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._pages: dict[str, _Page] = {}

    def __call__(
        self, world: World, record: Record, old: Message | None, new: Message | None
    ) -> Iterator[str]:
        """Times come once, in order, and not many at once."""
        if record.verb is not Verb.CREATE or not isinstance(new, Job) or record.manager != _MANAGER:
            return
        page = self._pages.setdefault(worlds.manager(new), _Page(jumps=world.jumps))
        at = new.metadata.annotations[_AT]
        if at in page.times:
            yield f"is another job for {at}"
        elif page.times and at < page.times[-1]:
            yield f"is a job for {at} after that for {page.times[-1]}"
        page.times.append(at)
        if page.jumps != world.jumps:
            page.jumps, page.made = world.jumps, []
        page.made.append(world.seconds)
        # One that was late, and one in time.
        most = 2 + int((page.made[-1] - page.made[0]) / _EVERY_SECONDS)
        if len(page.made) > most:
            yield f"is job {len(page.made)} since {page.made[0]:.0f} s, {most} were due"


def alone(world: World, record: Record, old: Message | None, new: Message | None) -> Iterator[str]:
    """Where the policy forbids it, no job is made while another one is active."""
    if record.verb is not Verb.CREATE or not isinstance(new, Job) or record.manager != _MANAGER:
        return
    name = next((o.name for o in new.metadata.owner_references if o.controller), "")
    owner = world.get(CronJob.DESCRIPTOR.full_name, new.metadata.namespace, name)
    if not isinstance(owner, CronJob) or owner.spec.concurrency_policy != "Forbid":
        return
    active = [
        each.metadata.name
        for each in world.owned(worlds.manager(new), Job)
        if not worlds.finished(each)
    ]
    if active:
        yield f"is made while {', '.join(active)} is active"
