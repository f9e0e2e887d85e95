"""The log as a witness: histories of clients held against it.

Every acknowledged write says its revision, so linearizability needs no search:

1. What returned before another was sent has the lesser revision (of reads: not the greater).
2. A read that says revision R shows exactly the state of the log at R.
3. An acknowledged write is in the log once, at its revision, all of it; a failed one never; one of
   unknown outcome once or never; and nothing is there that nobody wrote.
4. The log from empty gives the state: revisions follow one another, an object is made before it is
   changed, and its guards held.

`check` is a pure function from a log and a history to complaints; the log is the whole one, from
the first revision on. O(n log n).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kcore.kernel.record import Key, Record, Verb
from tests.chaos.history import History, Outcome, Read, Write


def check(log: Sequence[Record], history: History, manager: str, *, trimmed: int = 0) -> list[str]:
    """What is wrong; the history is of those who write as `manager`.

    `trimmed`: at most so many revisions were of kinds that keep no history, and may be missing.
    """
    return [
        *in_itself(log, trimmed),
        *in_real_time(history),
        *of_writes(log, history.writes, manager),
        *of_reads(States(log), history),
    ]


@dataclass(slots=True)
class States:
    """What was there at each revision, by the log."""

    log: Sequence[Record]
    _revisions: dict[Key, list[int]] = field(default_factory=dict)
    _bodies: dict[Key, list[bytes | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in self.log:
            body = None if record.verb is Verb.DELETE else record.body
            self._revisions.setdefault(record.key, []).append(record.revision)
            self._bodies.setdefault(record.key, []).append(body)

    def at(self, key: Key, revision: int) -> bytes | None:
        """One object as `revision` left it."""
        place = bisect_right(self._revisions.get(key, ()), revision)
        return self._bodies[key][place - 1] if place else None

    def all_at(self, kind: str, namespace: str, revision: int) -> dict[Key, bytes]:
        """The objects of a kind in a namespace ("": in all) as `revision` left them."""
        found = {}
        for key in self._revisions:
            if key.kind == kind and namespace in ("", key.namespace):
                body = self.at(key, revision)
                if body is not None:
                    found[key] = body
        return found

    def absent_within(self, key: Key, low: int, high: int) -> bool:
        """Whether there was none of this name at some revision of these."""
        if self.at(key, low) is None:
            return True
        revisions = self._revisions[key]
        first, last = bisect_right(revisions, low), bisect_right(revisions, high)
        return any(body is None for body in self._bodies[key][first:last])


def in_itself(log: Sequence[Record], trimmed: int = 0) -> Iterator[str]:
    """4: whether the log can be one at all."""
    missing = 0
    last = Record(0, Key("", "", ""), "", Verb.CREATE, b"", "", 0, 0.0)
    living: dict[Key, str] = {}
    for record in log:
        if record.position <= last.position:
            yield f"the log has position {record.position} after {last.position}"
        missing += max(0, record.revision - last.revision - 1)
        if record.revision > last.revision + 1 and missing > trimmed:
            yield f"revision {record.revision} follows {last.revision}"
        if record.time < last.time:
            yield f"revision {record.revision}: time goes back by {last.time - record.time:.3f} s"
        if record.because >= record.revision:
            yield f"revision {record.revision} is because of {record.because}"
        last = record
        uid = living.get(record.key)
        if record.verb is Verb.CREATE:
            if uid is not None:
                yield f"{record.key} is made at {record.revision}, but it was there"
            living[record.key] = record.uid
        elif uid != record.uid:
            yield f"{record.key} at {record.revision} is {record.uid}, but there was {uid}"
        if record.verb is Verb.DELETE:
            living.pop(record.key, None)


def in_real_time(history: History) -> Iterator[str]:
    """1: revisions agree with the order in which things returned and were sent."""
    known: list[tuple[float, float, int, bool, str]] = []
    for write in history.writes:
        if write.outcome is Outcome.OK:
            known.append(
                (write.sent, write.returned, write.revision, write.changed, write.request_id)
            )
    for read in history.reads:
        if read.at is None and read.revision:
            known.append((read.sent, read.returned, read.revision, False, f"read of {read.kind}"))
    by_return = sorted(known, key=lambda one: one[1])
    floor, past = 0, 0
    for sent, _, revision, changed, what in sorted(known):
        while past < len(by_return) and by_return[past][1] < sent:
            floor = max(floor, by_return[past][2])
            past += 1
        if revision < floor or (changed and revision == floor):
            yield f"{what} has revision {revision}, but {floor} had returned before it was sent"


def of_writes(log: Sequence[Record], writes: Iterable[Write], manager: str) -> Iterator[str]:
    """3, and that guards held."""
    found: dict[str, dict[int, list[Record]]] = {}
    before: dict[tuple[Key, int], int] = {}
    last: dict[Key, int] = {}
    for record in log:
        if record.manager == manager:
            by_revision = found.setdefault(record.request_id, {})
            by_revision.setdefault(record.revision, []).append(record)
        before[record.key, record.revision] = last.get(record.key, 0)
        last[record.key] = record.revision
    for write in writes:
        done = found.pop(write.request_id, {})
        yield from _of_write(write, done, before)
    for request_id, done in found.items():
        yield f"{request_id} at {sorted(done)} is nobody's"


def _of_write(
    write: Write, done: Mapping[int, list[Record]], before: Mapping[tuple[Key, int], int]
) -> Iterator[str]:
    named = write.request_id
    if len(done) > 1:
        yield f"{named} was done at {sorted(done)}: more than once"
    if write.outcome is Outcome.FAILED and done:
        yield f"{named} failed ({write.said}), but is there at {sorted(done)}"
    if write.outcome is Outcome.OK and write.changed:
        if not done:
            yield f"{named} was acknowledged at {write.revision} and is not there: lost"
        elif write.revision not in done:
            yield f"{named} was acknowledged at {write.revision} and is there at {sorted(done)}"
    if write.outcome is Outcome.OK and not write.changed and done:
        yield f"{named} was said to change nothing and is there at {sorted(done)}"
    for revision, records in done.items():
        if {record.key for record in records} != set(write.keys):
            yield f"{named}: only {[str(one.key) for one in records]} is there at {revision}"
        for key, guard in write.keys.items():
            if guard is not None and before.get((key, revision), 0) != guard:
                was = before.get((key, revision), 0)
                yield f"{named}: guarded by {key} at {guard}, done when it was at {was}"


def of_reads(states: States, history: History) -> Iterator[str]:
    """2: what reads showed."""
    bounds = _Bounds(history)
    for read in history.reads:
        revision = read.at or read.revision
        if read.name is not None:
            key = Key(read.kind, read.namespace, read.name)
            if not revision:
                low, high = bounds.of(read)
                if not states.absent_within(key, low, high):
                    yield f"{key} was not found, but it was there from {low} to {high}"
                continue
            body = states.at(key, revision)
            expected = {key: body} if body is not None else {}
        else:
            expected = states.all_at(read.kind, read.namespace, revision)
        if dict(read.found) != expected:
            keys = {*expected, *read.found}
            wrong = sorted(str(k) for k in keys if expected.get(k) != read.found.get(k))
            yield f"a read at {revision} shows {', '.join(wrong)} as the log does not"


class _Bounds:
    """Between which revisions a read that says none must have been."""

    def __init__(self, history: History) -> None:
        done = [one for one in history.writes if one.outcome is Outcome.OK]
        self._returned = sorted((one.returned, one.revision) for one in done)
        self._sent = sorted((one.sent, one.revision) for one in done if one.changed)
        self._floors: list[int] = []
        for _, revision in self._returned:
            self._floors.append(max(revision, self._floors[-1] if self._floors else 0))
        self._ceilings: list[int] = []
        for _, revision in reversed(self._sent):
            last = self._ceilings[-1] if self._ceilings else 1 << 62
            self._ceilings.append(min(revision, last))
        self._ceilings.reverse()

    def of(self, read: Read) -> tuple[int, int]:
        """The first and the last."""
        past = bisect_right(self._returned, (read.sent, -1))
        low = self._floors[past - 1] if past else 0
        after = bisect_right(self._sent, (read.returned, 1 << 62))
        return low, self._ceilings[after] - 1 if after < len(self._ceilings) else 1 << 62
