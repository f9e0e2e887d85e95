"""The feed: what its docstring promises, by example and by the nine validators."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.clock import LoopClock
from kcore.kernel import feed as feeds
from kcore.kernel import frame
from kcore.kernel.record import Key
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.kernel import things, watch_validators
from tests.kernel.things import KIND, PlainLog, thing

ADDED, MODIFIED, DELETED = pb.Event.ADDED, pb.Event.MODIFIED, pb.Event.DELETED


def make(limits: feeds.Limits | None = None) -> PlainLog:
    log = PlainLog()
    log.feed = feeds.Feed(log, LoopClock(), limits)
    return log


def request(*selections: dict[str, Any], **more: Any) -> pb.WatchRequest:
    chosen = [{"kind": KIND} | selection for selection in selections or ({},)]
    return pb.WatchRequest(selections=[pb.Selection(**one) for one in chosen], **more)


class Reader:
    """A stream, read message by message."""

    def __init__(self, log: PlainLog, asked: pb.WatchRequest, allowed: Any = None) -> None:
        assert log.feed is not None
        self.stream: AsyncGenerator[bytes, None] = log.feed.watch(asked, allowed)
        self.responses: list[pb.WatchResponse] = []
        self._next: asyncio.Task[bytes] | None = None
        # Compaction was faster than it.
        self.gone = False

    async def read(self) -> pb.WatchResponse:
        if self._next is None:
            data = await self.stream.__anext__()
        else:
            data, self._next = await self._next, None
        response = pb.WatchResponse.FromString(data)
        self.responses.append(response)
        return response

    async def read_ready(self, most: int = 1000) -> int:
        """Reads what can be read without waiting; returns how many messages."""
        for count in range(most):
            if self._next is None:
                self._next = asyncio.ensure_future(self.stream.__anext__())
            for _ in range(20):
                await asyncio.sleep(0)
                if self._next.done():
                    break
            else:
                return count
            if self._next.exception() is not None:
                error = self._next.exception()
                assert isinstance(error, ApiError) and error.reason is Reason.GONE, error
                self.gone = True
                return count
            await self.read()
        return most

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self.stream.aclose()


def told(response: pb.WatchResponse) -> list[tuple[int, str, int]]:
    return [
        (event.type, things.thing_class().FromString(event.object).metadata.name, event.revision)
        for event in response.events
    ]


async def test_the_present_then_changes() -> None:
    log = make()
    log.commit(("put", thing("b")))
    log.commit(("put", thing("a")))
    reader = Reader(log, request())
    first = await reader.read()
    assert told(first) == [(ADDED, "b", 1), (ADDED, "a", 2)]
    assert (first.revision, first.synced) == (2, True)
    log.commit(("put", thing("a", color="red")), ("put", thing("c")))
    log.commit(("delete", thing("b")))
    second = await reader.read()
    assert told(second) == [(MODIFIED, "a", 3), (ADDED, "c", 3), (DELETED, "b", 4)]
    assert (second.revision, second.synced) == (4, False)
    deleted = things.thing_class().FromString(second.events[2].object)
    assert deleted.metadata.resource_version == "4"
    await reader.close()
    assert log.feed is not None and log.feed.readers == 0


async def test_entering_is_added_and_leaving_is_deleted_with_the_last_state() -> None:
    log = make()
    log.commit(("put", thing("a", color="green", replicas=1)))
    readers = [
        Reader(log, request({"fields": "spec.color=red"})),
        Reader(log, request({"labels": "colour=red"})),
        Reader(log, request({"labels": "colour in (red, pink)"})),
    ]
    for reader in readers:
        assert told(await reader.read()) == []
    log.commit(("put", thing("a", color="red", replicas=2, labels={"colour": "red"})))
    log.commit(("put", thing("a", color="blue", replicas=3, labels={"colour": "blue"})))
    log.commit(("delete", thing("a")))
    for reader in readers:
        response = await reader.read()
        assert told(response) == [(ADDED, "a", 2), (DELETED, "a", 3)]
        last = things.thing_class().FromString(response.events[1].object)
        assert (last.spec.replicas, last.metadata.resource_version) == (2, "3")
        await reader.close()


async def test_many_selections_in_one_order() -> None:
    log = make()
    selections = ({"namespace": "x"}, {"namespace": "y"}, {"names": ["a"]}, {"kind": "*"})
    reader = Reader(log, request(*selections))
    await reader.read()
    log.commit(("put", thing("a", "y")))
    log.commit(("put", thing("b", "x")))
    response = await reader.read()
    assert [(event.revision, event.selection) for event in response.events] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 0),
        (2, 3),
    ]
    await reader.close()


async def test_of_any_kind_only_what_the_reader_may_see() -> None:
    log = make()
    log.commit(("put", thing("a", "secret")))
    log.commit(("put", thing("b", "open")))
    reader = Reader(log, request({"kind": "*"}), lambda kind, namespace, name: namespace == "open")
    assert told(await reader.read()) == [(ADDED, "b", 2)]
    log.commit(("put", thing("a", "secret", color="red")))
    log.commit(("put", thing("b", "open", color="red")))
    assert told(await reader.read()) == [(MODIFIED, "b", 4)]
    await reader.close()


async def test_an_event_says_its_kind_only_where_the_selection_does_not() -> None:
    log = make()
    log.commit(("put", thing("a")))
    # All at index 0, where one encoding would do for the first two.
    readers = [
        Reader(log, request()),
        Reader(log, request({})),
        Reader(log, request({"kind": "*"})),
    ]

    async def check(expected: list[tuple[int, str, int]]) -> None:
        for reader, said in zip(readers, ("", "", KIND), strict=True):
            response = await reader.read()
            assert told(response) == expected
            assert {event.kind for event in response.events} == {said}

    await check([(ADDED, "a", 1)])
    log.commit(("put", thing("a", color="red")))
    await check([(MODIFIED, "a", 2)])
    log.commit(("put", thing("b")), ("delete", thing("a")))
    await check([(ADDED, "b", 3), (DELETED, "a", 3)])
    for reader in readers:
        await reader.close()
    # What was before, from memory; a restart would read the log in the same way.
    resumed = Reader(log, request({"kind": "*", "from_revision": 1}))
    assert {event.kind for event in (await resumed.read()).events} == {KIND}
    await resumed.close()


async def test_what_is_merged_still_says_its_kind() -> None:
    log = make(feeds.Limits(pending_events=1))
    readers = [Reader(log, request()), Reader(log, request({"kind": "*"}))]
    for reader in readers:
        await reader.read()
    log.commit(("put", thing("a")))
    log.commit(("put", thing("a", color="red")))
    for reader, said in zip(readers, ("", KIND), strict=True):
        response = await reader.read()
        assert told(response) == [(ADDED, "a", 2)]
        assert [event.kind for event in response.events] == [said]
        await reader.close()


async def test_an_event_is_encoded_once_for_all() -> None:
    log = make()
    readers = [Reader(log, request()) for _ in range(3)]
    for reader in readers:
        await reader.read()
    log.commit(("put", thing("a")))
    assert log.feed is not None
    pending = [stream.pending[0] for stream in log.feed._readers]
    assert pending[0] is pending[1] is pending[2]
    for reader in readers:
        await reader.close()


async def test_resumes_from_memory_and_from_the_log() -> None:
    for recent in (4096, 0):
        log = make(feeds.Limits(recent_changes=recent, replay_records=2))
        for color in ("red", "green", "red", "red", "green"):
            log.commit(("put", thing("a", color=color)))
        log.commit(("delete", thing("a")))
        reader = Reader(log, request({"fields": "spec.color=red", "from_revision": 1}))
        response = await reader.read()
        assert told(response) == [
            (DELETED, "a", 2),
            (ADDED, "a", 3),
            (MODIFIED, "a", 4),
            (DELETED, "a", 5),
        ]
        assert (response.revision, response.synced) == (6, True)
        await reader.close()


async def test_a_mark_that_comes_to_be_owed_while_the_past_is_read_is_sent() -> None:
    log = make(feeds.Limits(recent_changes=0))
    log.commit(("put", thing("a", "x")))
    log.commit(("put", thing("a", "x", color="red")))
    gate, since = asyncio.Event(), log.since

    async def slow(revision: int) -> AsyncGenerator[Any, None]:
        await gate.wait()
        async for record in since(revision):
            yield record

    log.since = slow  # type: ignore[method-assign]
    assert log.feed is not None
    beating = asyncio.create_task(log.feed.run())
    reader = Reader(log, request({"namespace": "x", "from_revision": 1}, progress_ms=10))
    first = asyncio.create_task(reader.read())
    await asyncio.sleep(0.01)
    # It does not concern the reader, and nothing comes after it.
    log.commit(("put", thing("b", "y")))
    await asyncio.sleep(0.05)
    gate.set()
    assert (await first).revision == 2
    assert (await asyncio.wait_for(reader.read(), 5)).revision == 3
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    await reader.close()


async def test_of_kinds_without_history_the_last_state_is_told() -> None:
    log = make(feeds.Limits(recent_changes=0))
    log.forgetful = True
    log.commit(("put", thing("a", color="red")))
    log.commit(("put", thing("b", color="red")))
    log.commit(("put", thing("c", color="red")))
    for color in ("red", "green"):
        log.commit(("put", thing("a", color=color)))
        log.commit(("put", thing("b", color="red")))
    log.commit(("put", thing("c", color="green")))
    log.commit(("delete", thing("c")))
    reader = Reader(log, request({"fields": "spec.color=red", "from_revision": 3}))
    # What left without a trace is gone, though nobody knows when it was last there.
    assert told(await reader.read()) == [(DELETED, "a", 6), (MODIFIED, "b", 7), (DELETED, "c", 9)]
    await reader.close()


async def test_what_is_compacted_is_gone() -> None:
    log = make()
    for _ in range(5):
        log.commit(("put", thing("a")))
    log.compact(4)
    with pytest.raises(ApiError, match="too old resource version: 3") as caught:
        await Reader(log, request({"from_revision": 3})).read()
    assert caught.value.reason is Reason.GONE
    reader = Reader(log, request({"from_revision": 4}))
    assert told(await reader.read()) == [(MODIFIED, "a", 5)]
    await reader.close()


async def test_a_head_behind_what_the_reader_has_seen_is_gone() -> None:
    log = make()
    log.commit(("put", thing("a")))
    with pytest.raises(ApiError) as caught:
        await Reader(log, request({"from_revision": 9})).read()
    assert caught.value.reason is Reason.GONE


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (pb.WatchRequest(), Reason.INVALID),
        (request({"kind": "test.v1.Nothing"}), Reason.NOT_FOUND),
        (request({"labels": "a in b"}), Reason.INVALID),
        (request({"fields": "spec.replicas=1"}), Reason.INVALID),
        (request(mask={"paths": ["spec.colour"]}), Reason.INVALID),
        (request(progress_ms=-1), Reason.INVALID),
    ],
)
async def test_what_is_not_well_said_is_refused(asked: pb.WatchRequest, reason: Reason) -> None:
    with pytest.raises(ApiError) as caught:
        await Reader(make(), asked).read()
    assert caught.value.reason is reason


async def test_a_masked_watch_tells_only_of_masked_fields() -> None:
    log = make()
    log.commit(("put", thing("a", color="red", replicas=1)))
    reader = Reader(log, request(mask={"paths": ["spec.color"]}))
    first = (await reader.read()).events[0]
    shown = things.thing_class().FromString(first.object)
    assert (shown.spec.color, shown.spec.HasField("replicas")) == ("red", False)
    assert (shown.metadata.name, shown.metadata.resource_version) == ("a", "1")
    log.commit(("put", thing("a", color="red", replicas=2)))
    log.commit(("put", thing("a", color="blue", replicas=2)))
    assert told(await reader.read()) == [(MODIFIED, "a", 3)]
    await reader.close()


async def test_a_slow_readers_events_merge_per_object() -> None:
    log = make(feeds.Limits(pending_events=4, pending_bytes=1 << 20))
    log.commit(("put", thing("old")))
    reader = Reader(log, request())
    await reader.read()
    for number in range(500):
        log.commit(("put", thing("a", replicas=number)), ("put", thing("b", replicas=number)))
        log.commit(("put", thing("brief")))
        log.commit(("delete", thing("brief")))
    log.commit(("delete", thing("old")))
    log.commit(("put", thing("old")))
    assert log.feed is not None
    stream = next(iter(log.feed._readers))
    assert len(stream.pending) <= 12
    events = [event for event in told(await reader.read()) if event[1] != "brief"]
    assert events == [
        (ADDED, "a", log.head - 4),
        (ADDED, "b", log.head - 4),
        (DELETED, "old", log.head - 1),
        (ADDED, "old", log.head),
    ]
    await reader.close()


async def test_no_message_is_longer_than_stock_clients_take() -> None:
    log = make()
    for number in range(30):
        log.commit(("put", thing(f"a{number:02}", color="x" * 300_000)))
    reader = Reader(log, request())
    while not reader.responses or not reader.responses[-1].synced:
        response = await reader.read()
        assert response.ByteSize() <= 4 << 20
        assert response.revision == (30 if response.synced else 0)
    assert sum(len(response.events) for response in reader.responses) == 30
    resumed = Reader(log, request({"from_revision": 2}))
    while not resumed.responses or not resumed.responses[-1].synced:
        response = await resumed.read()
        assert response.ByteSize() <= 4 << 20
        assert response.synced or response.revision == response.events[-1].revision
    await reader.close()
    await resumed.close()


@pytest.mark.looptime
async def test_a_mark_follows_when_the_head_moves() -> None:
    log = make()
    assert log.feed is not None
    running = asyncio.ensure_future(log.feed.run())
    quick = Reader(log, request({"namespace": "x"}, progress_ms=50))
    slow = Reader(log, request({"namespace": "x"}))
    for reader in (quick, slow):
        await reader.read()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(100)
    began = loop.time()
    log.commit(("put", thing("a", "y")))
    response = await quick.read()
    assert (response.revision, len(response.events)) == (1, 0)
    assert loop.time() - began <= 0.05
    response = await slow.read()
    assert (response.revision, len(response.events)) == (1, 0)
    assert loop.time() - began <= 10
    # Nothing moves, nothing is said.
    assert await quick.read_ready() == 0
    await asyncio.sleep(100)
    assert await quick.read_ready() == 0
    for reader in (quick, slow):
        await reader.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stream_ends_when_its_permission_does() -> None:
    log = make()
    permitted = {"x", "y"}

    def allowed(kind: str, namespace: str, name: str) -> bool:
        return namespace in permitted

    readers = [Reader(log, request({"namespace": one}), allowed) for one in ("x", "y")]
    for reader in readers:
        await reader.read()
    permitted.remove("x")
    assert log.feed is not None
    log.feed.recheck()
    with pytest.raises(ApiError) as caught:
        await readers[0].read()
    assert caught.value.reason is Reason.FORBIDDEN
    log.commit(("put", thing("a", "y")))
    assert told(await readers[1].read()) == [(ADDED, "a", 1)]
    log.feed.close()
    with pytest.raises(ApiError) as caught:
        await readers[1].read()
    assert caught.value.reason is Reason.UNAVAILABLE
    with pytest.raises(ApiError):
        await Reader(log, request()).read()


async def test_forgotten_selections_leave_nothing_behind() -> None:
    log = make()
    assert log.feed is not None
    for number in range(50):
        asked = request({"fields": f"spec.color=c{number}"}, {"labels": f"l{number}=1"})
        reader = Reader(log, asked)
        await reader.read()
        await reader.close()
    shelves = log.feed._interests._kinds[KIND]
    assert not (shelves.fields or shelves.labels or shelves.names or shelves.namespaces)


# The nine validators, on logs, readers and paces of all sorts.

SELECTIONS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda one: True),
    ({"namespace": "x"}, lambda one: one.metadata.namespace == "x"),
    ({"fields": "spec.color=red"}, lambda one: one.spec.color == "red"),
    ({"fields": "spec.color!=red"}, lambda one: one.spec.color != "red"),
    ({"labels": "app=a"}, lambda one: one.metadata.labels.get("app") == "a"),
    ({"labels": "!app"}, lambda one: "app" not in one.metadata.labels),
    ({"names": ["a", "b"]}, lambda one: one.metadata.name in ("a", "b")),
    (
        {"kind": "*", "fields": "metadata.name=a", "namespace": "x"},
        lambda one: (one.metadata.name, one.metadata.namespace) == ("a", "x"),
    ),
]

_OPERATION = st.tuples(
    st.sampled_from(["put", "put", "put", "delete"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["red", "green"]),
    st.sampled_from([{}, {"app": "a"}, {"app": "b"}]),
)
_STEP = st.one_of(
    st.tuples(st.just("commit"), st.lists(_OPERATION, min_size=1, max_size=4)),
    st.tuples(st.just("batch"), st.lists(st.lists(_OPERATION, min_size=1, max_size=2), max_size=5)),
    st.tuples(
        st.just("open"), st.lists(st.integers(0, len(SELECTIONS) - 1), min_size=1, max_size=3)
    ),
    st.tuples(st.just("read"), st.integers(0, 5), st.integers(1, 3)),
    st.tuples(st.just("resume"), st.integers(0, 5)),
    st.tuples(st.just("compact"), st.integers(0, 3)),
)


class World:
    """A log with readers, each held against the whole log when it is closed."""

    def __init__(self, limits: feeds.Limits, keeps_up: bool) -> None:
        self.log = make(limits)
        self.keeps_up = keeps_up
        self.readers: list[tuple[Reader, list[watch_validators.Asked], list[int]]] = []
        self.witness: list[Any] = []
        self.checked = 0

    def _do(self, operations: list[Any]) -> list[Any]:
        alive = set(self.log.state)
        chosen = []
        for verb, name, namespace, color, labels in operations:
            key = Key(KIND, namespace, name)
            if verb == "delete" and key not in alive:
                continue
            (alive.discard if verb == "delete" else alive.add)(key)
            chosen.append((verb, thing(name, namespace, color=color, labels=labels)))
        changes = self.log.apply(*chosen) if chosen else []
        self.witness += [change.record for change in changes]
        return changes

    async def step(self, step: Any) -> None:
        what = step[0]
        if what == "commit":
            self.log.publish(self._do(step[1]))
        elif what == "batch":
            changes = [change for operations in step[1] for change in self._do(operations)]
            self.log.publish(changes)
        elif what == "open":
            await self.open(step[1], [0] * len(step[1]))
        elif what == "compact":
            self.log.compact(max(0, self.log.head - step[1]))
        elif self.readers:
            reader, asked, chosen = self.readers[step[1] % len(self.readers)]
            if what == "read":
                await reader.read_ready(step[2])
            else:
                mark = max([response.revision for response in reader.responses], default=0)
                await self.end(reader, asked)
                self.readers.remove((reader, asked, chosen))
                if mark >= self.log.compacted:
                    await self.open(chosen, [mark] * len(chosen))
        if self.keeps_up:
            for reader, _, _ in self.readers:
                await reader.read_ready()

    async def open(self, chosen: list[int], starts: list[int]) -> None:
        selections = [SELECTIONS[one] for one in chosen]
        asked = [
            watch_validators.Asked(KIND, things.thing_class().FromString, matches, start)
            for (_, matches), start in zip(selections, starts, strict=True)
        ]
        wanted = request(
            *[
                one | {"from_revision": start}
                for (one, _), start in zip(selections, starts, strict=True)
            ]
        )
        reader = Reader(self.log, wanted)
        await reader.read_ready(1)
        self.readers.append((reader, asked, chosen))

    async def end(self, reader: Reader, asked: list[watch_validators.Asked]) -> None:
        self.checked += watch_validators.check(
            self.witness, reader.responses, asked, keeps_up=self.keeps_up
        )
        await reader.close()

    async def finish(self) -> None:
        for reader, asked, _ in self.readers:
            await reader.read_ready()
            assert reader.gone or any(response.synced for response in reader.responses)
            await self.end(reader, asked)


@pytest.mark.parametrize("keeps_up", [True, False])
@pytest.mark.parametrize("recent", [0, 3, 4096])
@settings(max_examples=budget.examples(60), deadline=None)
@given(steps=st.lists(_STEP, max_size=40))
def test_the_nine_validators(keeps_up: bool, recent: int, steps: list[Any]) -> None:
    limits = feeds.Limits(
        message_bytes=200,
        pending_events=1 << 20 if keeps_up else 3,
        pending_bytes=1 << 30,
        recent_changes=recent,
        replay_records=2,
    )

    async def scenario() -> None:
        world = World(limits, keeps_up)
        for step in steps:
            await world.step(step)
        await world.finish()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(4))
def test_the_nine_validators_at_length(seed: int) -> None:
    """Longer runs, with a floor on what was checked: a test of an idle log proves nothing."""
    draw = random.Random(seed)

    def operation() -> Any:
        verb = draw.choice(["put", "put", "put", "delete"])
        labels = draw.choice([{}, {"app": "a"}, {"app": "b"}])
        return (
            verb,
            draw.choice("abc"),
            draw.choice("xy"),
            draw.choice(["red", "green"]),
            labels,
        )

    async def scenario() -> int:
        keeps_up = seed % 2 == 0
        limits = feeds.Limits(
            message_bytes=400,
            pending_events=1 << 20 if keeps_up else 8,
            recent_changes=20,
            replay_records=5,
        )
        world = World(limits, keeps_up)
        for count in range(300):
            if count % 40 == 0:
                await world.step(("open", draw.sample(range(len(SELECTIONS)), 3)))
            await world.step(("commit", [operation() for _ in range(draw.randint(1, 3))]))
            if count % 7 == 0:
                await world.step(("read", draw.randint(0, 5), 2))
            if count % 29 == 0:
                await world.step(("resume", draw.randint(0, 5)))
            if count % 10 == 0:
                await world.step(("compact", 15))
        await world.finish()
        return world.checked

    assert asyncio.run(scenario()) > 500


@given(
    st.integers(1, 3),
    st.binary(min_size=1, max_size=300),
    st.integers(0, 1 << 62),
    st.integers(0, 300),
    st.sampled_from(["", "kcore.core.v1.Pod", "a." + "b" * 200]),
    st.booleans(),
)
def test_bytes_are_what_the_generated_classes_make(
    kind: int, body: bytes, revision: int, selection: int, object_kind: str, synced: bool
) -> None:
    made = frame.watch_response(
        revision, [frame.event(kind, body, revision, selection, object_kind)] * 2, synced
    )
    event = pb.Event(
        type=kind,  # type: ignore[arg-type]
        object=body,
        revision=revision,
        selection=selection,
        kind=object_kind,
    )
    expected = pb.WatchResponse(revision=revision, events=[event] * 2, synced=synced)
    assert pb.WatchResponse.FromString(made) == expected
    if revision:
        assert made == expected.SerializeToString(deterministic=True)


@given(st.integers(1, 1 << 40))
def test_a_revision_is_set_in_the_bytes(revision: int) -> None:
    before = thing("a", color="red", labels={"b": "c"})
    body = before.SerializeToString(deterministic=True)
    after = things.thing_class().FromString(frame.with_revision(body, revision))
    assert after.metadata.resource_version == str(revision)
    after.metadata.ClearField("resource_version")
    assert after == before


@pytest.mark.looptime
async def test_a_crowd_is_told_at_once_and_then_together() -> None:
    log = make()
    assert log.feed is not None
    heard: list[list[int]] = [[] for _ in range(100)]

    async def listen(number: int) -> None:
        assert log.feed is not None
        async for message in log.feed.watch(request()):
            if events := len(pb.WatchResponse.FromString(message).events):
                heard[number].append(events)

    async with Tasks() as tasks:
        tasks.start(log.feed.run())
        for number in range(len(heard)):
            tasks.start(listen(number))
        await asyncio.sleep(0.01)
        for number in range(10):
            log.commit(("put", thing(f"thing-{number}")))
            await asyncio.sleep(0.001)
        # The first change goes out at once, the others when all have been told of it.
        assert heard == [[1]] * len(heard)
        await asyncio.sleep(0.5)
        assert heard == [[1, 9]] * len(heard)
        tasks.cancel()
