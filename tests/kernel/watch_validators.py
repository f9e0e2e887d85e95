"""The nine watch validators of etcd's robustness tests, for kcore's Watch.

`check` holds what a stream told against the log, the whole of it: the log is a witness. What a
stream promises is written in kcore/kernel/feed.py. A failure is an AssertionError that starts with
the validator's name.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.kernel.record import Key, Record, Verb

ADDED, MODIFIED, DELETED = pb.Event.ADDED, pb.Event.MODIFIED, pb.Event.DELETED


@dataclass(frozen=True)
class Asked:
    """What one selection of the stream asked for, said without the code under test."""

    kind: str
    decode: Callable[[bytes], Any]
    # Of a decoded object.
    matches: Callable[[Any], bool]
    # The revision that it asked changes after; 0: the present first.
    start: int = 0
    # Of a decoded object: a new one, of what the stream's mask leaves; None: there is no mask.
    masked: Callable[[Any], Any] | None = None

    def same(self, one: tuple[str, bytes], other: tuple[str, bytes]) -> bool:
        """Whether two states of an object look the same, but for the revision of a masked one."""
        if self.masked is None or one[0] != other[0]:
            return one == other
        shown = [self.masked(self.decode(body)) for _, body in (one, other)]
        for each in shown:
            # Of what the mask hides nothing is told.
            each.metadata.ClearField("resource_version")
        return bool(shown[0] == shown[1])


@dataclass(frozen=True)
class Told:
    """One event, with what it is about."""

    kind: int
    key: Key
    uid: str
    revision: int
    body: bytes


class Held:
    """The whole log, and what each selection held of it, found out once for many streams."""

    def __init__(self, records: Iterable[Record]) -> None:
        """`records`: from the first revision on, whatever has been compacted."""
        self.log = list(records)
        self._by_selection: dict[tuple[str, Callable[[Any], bool]], _History] = {}

    def by(self, asked: Asked) -> "_History":
        """What a selection held at each revision."""
        selection = asked.kind, asked.matches
        found = self._by_selection.get(selection)
        if found is None:
            found = self._by_selection[selection] = _History(self.log, asked)
        return found


def check(
    records: Iterable[Record] | Held,
    responses: Sequence[pb.WatchResponse],
    asked: Sequence[Asked],
    *,
    keeps_up: bool,
) -> int:
    """Holds the stream against the log; returns how many events it checked.

    `records` is the log from the first revision on, whatever has been compacted. `keeps_up`: the
    reader got every change; otherwise merging is allowed.
    """
    held = records if isinstance(records, Held) else Held(records)
    _bookmarkable(responses)
    _ordered(responses)
    _atomic(responses)
    count = 0
    for index, one in enumerate(asked):
        count += _selection(held, responses, index, one, keeps_up)
    return count


def _bookmarkable(responses: Sequence[pb.WatchResponse]) -> None:
    mark = 0
    synced = 0
    for response in responses:
        for event in response.events:
            # The present is told at the revisions that its objects have.
            if synced:
                assert event.revision > mark, (
                    f"bookmarkable: event at {event.revision} after the mark {mark}"
                )
        assert response.revision >= mark, f"bookmarkable: mark {response.revision} after {mark}"
        mark = response.revision
        synced += response.synced
    assert synced <= 1, "bookmarkable: synced more than once"


def _ordered(responses: Sequence[pb.WatchResponse]) -> None:
    revisions = [event.revision for response in responses for event in response.events]
    assert revisions == sorted(revisions), f"ordered: {revisions}"


def _atomic(responses: Sequence[pb.WatchResponse]) -> None:
    home: dict[int, int] = {}
    for number, response in enumerate(responses):
        for event in response.events:
            first = home.setdefault(event.revision, number)
            assert first == number, f"atomic: revision {event.revision} in two messages"


def _selection(
    held: Held,
    responses: Sequence[pb.WatchResponse],
    index: int,
    asked: Asked,
    keeps_up: bool,
) -> int:
    """Unique, reliable, resumable, previous value, is-create and filter, for one selection."""
    history = held.by(asked)
    view = history.state(asked.start) if asked.start else {}
    marked = [
        (
            response.revision,
            [_told(event, asked) for event in response.events if event.selection == index],
            response.synced,
        )
        for response in responses
    ]
    seen: set[tuple[Key, str, int, int]] = set()
    synced = any(done for _, _, done in marked)
    told: list[Told] = []
    so_far: list[Told] = []
    present = not asked.start
    since = asked.start
    for mark, events, done in marked:
        so_far += events
        for event in events:
            once = (event.key, event.uid, event.revision, event.kind)
            assert once not in seen, f"unique: {once}"
            seen.add(once)
            _fits(history, asked, view, event)
            if event.kind == DELETED:
                del view[event.key]
            else:
                view[event.key] = (event.uid, event.body)
        if not present:
            told += events
        if done and present:
            present = False
            since = mark
        if synced and mark and (done or not present):
            # Reliable and resumable: at each mark the reader knows what the log says was
            # there, but for objects of which it has been told something later.
            so_far = [event for event in so_far if event.revision > mark]
            ahead = {event.key for event in so_far}
            state = history.state(mark)
            known = {key: one for key, one in view.items() if key not in ahead}
            expected = {key: one for key, one in state.items() if key not in ahead}
            differ = {key for key in known.keys() & expected.keys()
                      if not asked.same(known[key], expected[key])}  # fmt: skip
            assert known.keys() == expected.keys() and not differ, (
                f"reliable: at mark {mark}, selection {index}: missing "
                f"{sorted(set(expected) - set(known))}, "
                f"too much {sorted(set(known) - set(expected))}, other {sorted(differ)}"
            )
    if keeps_up and not present and marked and asked.masked is None:
        last = marked[-1][0]
        expected_events = [
            event for event in events_of(held.log, asked) if since < event.revision <= last
        ]
        assert told == expected_events, f"reliable: {told} is not {expected_events}"
    return len(seen)


def _fits(
    history: "_History", asked: Asked, view: dict[Key, tuple[str, bytes]], event: Told
) -> None:
    known = view.get(event.key)
    if event.kind == ADDED:
        assert known is None, f"is-create: {event.key} was there at {event.revision}"
    else:
        assert known is not None, f"is-create: {event.key} was not there at {event.revision}"
        assert known[0] == event.uid, f"is-create: {event.key} is another one at {event.revision}"
    shown = asked.decode(event.body)
    assert shown.metadata.resource_version == str(event.revision), (
        f"previous value: {event.key} says {shown.metadata.resource_version}, not {event.revision}"
    )
    if asked.masked is None:
        assert asked.matches(shown), f"filter: {event.key} at {event.revision} is not selected"
    else:
        # The log says below whether it is selected: that may rest on what is hidden.
        assert shown == asked.masked(shown), f"filter: {event.key} at {event.revision} shows more"
    if event.kind == DELETED:
        # The last state that was in the selection, but for its revision.
        last = history.at(event.key, event.revision - 1)
        if last is None:
            # It entered and left within what was merged.
            return
        before = asked.decode(last[1])
        before = _copied(before if asked.masked is None else asked.masked(before))
        shown = _copied(shown)
        # The deletion itself may have left its mark.
        for one in (before, shown):
            for name in ("resource_version", "deletion_timestamp", "deletion_grace_period_seconds"):
                one.metadata.ClearField(name)
        assert before == shown, f"previous value: {event.key} at {event.revision}"
    else:
        current = history.at(event.key, event.revision)
        assert current is not None and asked.same(current, (event.uid, event.body)), (
            f"previous value: {event.key} at {event.revision} is not the log's"
        )


def _copied(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


class _History:
    """What a selection held at each revision."""

    def __init__(self, log: list[Record], asked: Asked) -> None:
        self._revisions: dict[Key, list[int]] = {}
        self._states: dict[Key, list[tuple[str, bytes] | None]] = {}
        for record in log:
            if record.key.kind != asked.kind:
                continue
            there = record.verb is not Verb.DELETE and asked.matches(asked.decode(record.body))
            self._revisions.setdefault(record.key, []).append(record.revision)
            states = self._states.setdefault(record.key, [])
            states.append((record.uid, record.body) if there else None)

    def at(self, key: Key, revision: int) -> tuple[str, bytes] | None:
        """One object as it was held when `revision` was the head: uid and bytes."""
        place = bisect_right(self._revisions.get(key, []), revision)
        return self._states[key][place - 1] if place else None

    def state(self, revision: int) -> dict[Key, tuple[str, bytes]]:
        """All that was held when `revision` was the head."""
        found = {key: self.at(key, revision) for key in self._revisions}
        return {key: state for key, state in found.items() if state is not None}


def events_of(log: Iterable[Record], asked: Asked) -> list[Told]:
    """What a reader that keeps up is told of each revision."""
    told: list[Told] = []
    held: dict[Key, Any] = {}
    by_revision: dict[int, list[Record]] = {}
    for record in log:
        if record.key.kind == asked.kind:
            by_revision.setdefault(record.revision, []).append(record)
    for revision, group in sorted(by_revision.items()):
        for record in _last_of_each(group):
            key = record.key
            message = asked.decode(record.body)
            now = record.verb is not Verb.DELETE and asked.matches(message)
            was = held.get(key)
            if now:
                told.append(
                    Told(MODIFIED if was else ADDED, key, record.uid, revision, record.body)
                )
                held[key] = message
            elif was:
                last = _copied(was)
                last.metadata.resource_version = str(revision)
                body = last.SerializeToString(deterministic=True)
                told.append(Told(DELETED, key, last.metadata.uid, revision, body))
                del held[key]
    return told


def _last_of_each(group: list[Record]) -> list[Record]:
    """The last record of each object in one revision; a deletion before a creation stays."""
    kept: list[Record] = []
    for at, record in enumerate(group):
        after = [other for other in group[at + 1 :] if other.key == record.key]
        if not after or (record.verb is Verb.DELETE and after[-1].verb is not Verb.DELETE):
            kept.append(record)
    return kept


def _told(event: pb.Event, asked: Asked) -> Told:
    metadata = asked.decode(event.object).metadata
    key = Key(asked.kind, metadata.namespace, metadata.name)
    return Told(event.type, key, metadata.uid, event.revision, event.object)
