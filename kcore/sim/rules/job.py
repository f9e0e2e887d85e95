"""Jobs: every end of a pod counts once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from kcore.kernel.record import Record
from kcore.sim import world as worlds
from kcore.sim.world import Job, Pod, World

Rule = Callable[[World, Record, Message | None, Message | None], Iterable[str]]

_TRACKING = "batch.kubernetes.io/job-tracking"
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(slots=True)
class _Account:
    """What a job's pods did: uids, and the numbers of those that succeeded."""

    job: Job | None = None
    succeeded: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    is_closed: bool = False


class Ledger:
    """Keeps books beside the job's own: what loses its finalizer is counted in that revision."""

    def __init__(self) -> None:
        """Empty books."""
        self._accounts: dict[str, _Account] = {}
        self._touched: dict[str, None] = {}
        self._revision = 0

    def __call__(
        self, world: World, record: Record, old: Message | None, new: Message | None
    ) -> Iterator[str]:
        """Judges the last revision when the next begins."""
        if record.revision != self._revision:
            yield from self._judge()
            self._revision = record.revision
        if isinstance(new, Job) or isinstance(old, Job):
            self._job(record, new)
        elif isinstance(old, Pod) and _TRACKING in old.metadata.finalizers:
            released = new is None or _TRACKING not in worlds.metadata(new).finalizers
            if released:
                self._released(old, old if new is None else new)

    def _job(self, record: Record, new: Message | None) -> None:
        account = self._accounts.setdefault(record.uid, _Account())
        # Its last revision counts what it has left; after that nothing does.
        if account.job is not None and _is_closed(account.job):
            account.is_closed = True
        if not isinstance(new, Job) or new.metadata.HasField("deletion_timestamp"):
            account.is_closed = True
            return
        account.job = new
        self._touched[record.uid] = None

    def _released(self, old: Pod, new: Message) -> None:
        uid = worlds.manager(old)
        account = self._accounts.get(uid)
        if account is None or account.is_closed:
            return
        self._touched[uid] = None
        if old.status.phase == "Succeeded":
            account.succeeded.add(old.metadata.uid)
            if (index := old.metadata.annotations.get(_INDEX)) is not None:
                account.numbers.add(int(index))
        elif old.status.phase == "Failed" or old.metadata.HasField("deletion_timestamp"):
            account.failed.add(old.metadata.uid)

    def _judge(self) -> Iterator[str]:
        for uid in self._touched:
            account = self._accounts[uid]
            live = account.job
            if live is None or account.is_closed:
                continue
            named = f"job {live.metadata.namespace}/{live.metadata.name}"
            indexed = live.spec.completion_mode == "Indexed"
            did = len(account.numbers if indexed else account.succeeded)
            if live.status.succeeded != did:
                yield f"{named} has counted {live.status.succeeded} successes of {did}"
            if indexed and _numbers(live.status.completed_indexes) != account.numbers:
                said = live.status.completed_indexes
                yield f"{named} has completed {said}, but {sorted(account.numbers)} did"
            failed = live.status.failed
            if not live.spec.HasField("pod_failure_policy") and failed != len(account.failed):
                yield f"{named} has counted {failed} failures of {len(account.failed)}"
            account.is_closed = _is_closed(live)
        self._touched.clear()


def ends_done(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """A job is complete when enough have succeeded, and none of its pods runs any more."""
    if not isinstance(new, Job) or not isinstance(old, Job):
        return
    if not worlds.finished(new) or worlds.finished(old):
        return
    if worlds.finished(new) == "Complete" and new.status.succeeded < new.spec.completions:
        yield f"complete with {new.status.succeeded} of {new.spec.completions}"
    running = [
        pod.metadata.name
        for pod in world.owned(new.metadata.uid, Pod)
        if not worlds.is_over(pod)
        and world.created[pod.metadata.uid] <= record.because
        # Nobody bound it, and nobody will: it has never run.
        and not (pod.metadata.HasField("deletion_timestamp") and not pod.spec.node_name)
    ]
    if running:
        yield f"{worlds.finished(new)} while {', '.join(running)} are not over"


def truly(ended: Callable[[str], int | None]) -> Rule:
    """A pod says that it succeeded only if its container did; `ended`: exit code, by uid."""

    def rule(
        world: World, record: Record, old: Message | None, new: Message | None
    ) -> Iterator[str]:
        if not isinstance(new, Pod) or new.status.phase != "Succeeded":
            return
        if not isinstance(old, Pod) or old.status.phase != "Succeeded":
            code = ended(record.uid)
            if code != 0:
                yield f"has succeeded, but its container ended with {code}"

    return rule


def _is_closed(job: Job) -> bool:
    return bool(worlds.finished(job)) or job.metadata.HasField("deletion_timestamp")


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
