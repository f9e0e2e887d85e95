"""The kernel: objects of unknown kind, with one order for all changes.

    async with kernel.opened(store, schema, admission, clock, chance) as k:
        await k.commit(request, actor)

Opening replays the log into memory. `commit` queues transactions for the one writer, which takes
all that wait, evaluates them one after another, appends what they changed with one sync, and only
then lets anybody see it: readers, watchers, and those who asked. Reading needs no lock: between two
awaits the state is that of one revision.

When an append fails, nobody knows what is on the disk. The kernel then answers nothing until it has
opened the store again and replayed it; those who asked are told that their write may have been
applied.

A store may be written by several kernels. Each follows its tail: what others append is shown here
and told to watchers, too. An append that comes too late is refused by the store; then the kernel
catches up and evaluates the batch again. Before a read it asks the store for the head, and catches
up with that.

It knows no kind, no transport, and no permission: whoever calls has asked whether he may.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from google.protobuf import descriptor_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel import admit, commit, layout, patch, upload
from kcore.kernel.feed import Allowed, Feed
from kcore.kernel.listing import Listing
from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.kernel.replica import Replica
from kcore.kernel.schema import Schema
from kcore.kernel.state import Draft
from kcore.kernel.store import (
    REMEMBERED_SECONDS,
    Conflict,
    Full,
    Opened,
    Refused,
    Store,
    Tail,
    TooLarge,
)
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason, to_status

MESSAGE_BYTES: Final = 4 << 20
# Of an answer's objects and errors; what is said of each transaction besides fits into the rest.
_ANSWER_BYTES: Final = 3 << 20
# Limits of a batch: it shares one sync, and holds up the loop while it is evaluated. With the head
# it is what an etcd takes at once that nobody has configured.
_BATCH_OPERATIONS: Final = 127
_BATCH_BYTES: Final = 4 << 20
# What may wait before callers are told to come back.
_QUEUE_TRANSACTIONS: Final = 8192
_QUEUE_BYTES: Final = 64 << 20
# Of an error's message that does not fit into an answer.
_CUT_LETTERS: Final = 100

# Objects deleted at once because they have lived their time, and who does it.
_BURIED_AT_ONCE: Final = 256
_ACTOR: Final = "system:kernel"
# Between two attempts to open a store that cannot be reached.
_REOPEN_SECONDS: Final = 0.5
# Records of others that are shown at once.
_FOLLOWED_RECORDS: Final = 512

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How far the log goes back, and how often what is older is let go."""

    seconds: float = 3600.0
    revisions: int = 100_000
    every_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a transaction is answered."""

    revision: int
    results: tuple[commit.Result, ...]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A transaction that waits for the writer, and the future that waits for its answer."""

    transaction: pb.Transaction
    actor: str
    dry_run: bool
    size: int
    answer: asyncio.Future[_Answer]

    def settle(self, answer: _Answer | Exception) -> None:
        """Answers, if anybody still waits."""
        if self.answer.done():
            return
        if isinstance(answer, _Answer):
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(answer)

    def abandon(self) -> None:
        """Nobody waits any more."""
        if not self.answer.cancel() and not self.answer.cancelled():
            # Looked at, or the loop complains that nobody has heard of it.
            self.answer.exception()


@asynccontextmanager
async def opened(
    store: Store,
    schema: Schema,
    admission: Mapping[str, admit.Admit],
    clock: Clock,
    chance: Chance,
    *,
    codec: patch.Codec | None = None,
    leaving: Mapping[str, admit.Leave] | None = None,
    page_secret: bytes = b"",
    retention: Retention | None = None,
) -> AsyncIterator["Kernel"]:
    """A kernel on a store, with its background work; the store is closed at the end.

    `schema`: the kinds that are built in. `admission` says by kind what creating one implies,
    `leaving` by "kind/subresource" what deleting one through that door does; without it no door but
    the main one deletes. `codec` reads and writes JSON, for patches; without it they are
    UNIMPLEMENTED. `page_secret` signs page tokens; drawn from `chance` where there is none.
    """
    setting = commit.Setting(admission, chance, codec, leaving or {})
    secret = page_secret or chance.token(32).encode()
    kernel = Kernel(store, schema, setting, clock, secret, retention)
    await kernel.open()
    try:
        async with Tasks() as tasks:
            tasks.start(kernel.run(), "kernel")
            yield kernel
            tasks.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None
    finally:
        await kernel.close()


class Kernel:
    """Objects, their log, and its tail."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        setting: commit.Setting,
        clock: Clock,
        page_secret: bytes,
        retention: Retention | None = None,
    ) -> None:
        """Call `open`, then `run`; or use `opened`."""
        self._retention = retention or Retention()
        self._store = store
        self._setting = setting
        self._clock = clock
        self._replica = Replica(schema, store)
        self._listing = Listing(self._replica, page_secret)
        self._feed = Feed(self._replica, clock)
        self._opened = Opened("", 0, 0, 0.0, 0)
        self._failed: ApiError | None = _not_open()
        # Since when the store is asked to append.
        self._asked_at: float | None = None
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._wanted = asyncio.Event()
        # Held by whoever brings the replica forward.
        self._forward = asyncio.Lock()
        # Transactions of the last minutes by actor and request id: the revision that each made.
        self._remembered: dict[tuple[str, str], int] = {}
        self._remembered_at: deque[tuple[float, tuple[str, str]]] = deque()
        self._remembered_since = 0.0
        # Objects of kinds with a limited life, by the time of their last write.
        self._mortal: dict[str, dict[Key, float]] = {}

    async def open(self) -> None:
        """Opens the store and replays it; waits for one that cannot be reached."""
        await self._replay_when_there()
        self._feed = Feed(self._replica, self._clock)
        self._failed = None

    async def run(self) -> None:
        """The writer, the feed's marks, and housekeeping, for ever."""
        try:
            async with Tasks() as tasks:
                tasks.start(self._write(), "kernel-writer")
                tasks.start(self._feed.run(), "kernel-feed")
                tasks.start(self._keep_house(), "kernel-housekeeping")
                if self._store.tail is not None:
                    tasks.start(self._follow(self._store.tail), "kernel-tail")
        finally:
            self._stop(ApiError(Reason.UNAVAILABLE, "the server is shutting down"))

    async def close(self) -> None:
        """Lets go of the store."""
        self._stop(_not_open())
        await self._store.close()

    @property
    def schema(self) -> Schema:
        """The kinds that are served."""
        return self._replica.schema

    @property
    def head(self) -> int:
        """The last revision that is durable and seen."""
        return self._replica.head

    @property
    def cluster_id(self) -> str:
        """The cluster's identity."""
        return self._opened.cluster_id

    @property
    def epoch(self) -> int:
        """Grows with each deliberate restore."""
        return self._opened.epoch

    @property
    def waiting_seconds(self) -> float:
        """For how long the store has not answered; 0: nothing is asked of it."""
        asked = self._asked_at
        return self._clock.monotonic() - asked if asked is not None else 0.0

    @property
    def feed(self) -> Feed:
        """Whom changes are told to."""
        return self._feed

    def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served, and the limits."""
        self._check_serving()
        schema = self.schema
        response = pb.KindsResponse(
            digest=schema.digest,
            revision=schema.revision,
            limits=pb.Limits(
                object_bytes=admit.OBJECT_BYTES,
                transaction_operations=commit.TRANSACTION_OPERATIONS,
                transaction_bytes=commit.TRANSACTION_BYTES,
                message_bytes=MESSAGE_BYTES,
            ),
            cluster_id=self._opened.cluster_id,
            epoch=self._opened.epoch,
        )
        if request.digest != schema.digest:
            files = descriptor_pb2.FileDescriptorSet.FromString(schema.descriptors)
            response.descriptors.CopyFrom(files)
        return response

    async def get(self, request: pb.GetRequest) -> bytes:
        """A GetResponse, encoded."""
        await self._be_current()
        return await self._listing.get(request)

    async def list(self, request: pb.ListRequest, user: str = "") -> bytes:
        """A ListResponse, encoded; `user` is whom the next page's token is for."""
        await self._be_current()
        return await self._listing.list_page(request, user)

    def shown(self, key: Key) -> Stored | None:
        """One object as it is seen here; where others write, too, it may be older than a read."""
        self._check_serving()
        return self._replica.get(key)

    def shown_all(self, kind: str, path: str = "", value: str = "") -> Iterable[Stored]:
        """The objects of a kind as they are seen here; those with this value of a selectable path.

        To be gone through before anything is awaited.
        """
        self._check_serving()
        state = self._replica.state
        return state.selected(kind, path, value) if path else state.objects(kind, "")

    def changed(self, kind: str) -> int:
        """The last revision, of those seen here, that changed an object of the kind."""
        return self._replica.state.changed(kind)

    def watch(
        self, request: pb.WatchRequest, allowed: Allowed | None = None
    ) -> AsyncGenerator[bytes, None]:
        """WatchResponses, encoded."""
        self._check_serving()
        return self._feed.watch(request, allowed)

    async def commit(self, request: pb.CommitRequest, actor: str) -> pb.CommitResponse:
        """Transactions, in order. One alone raises its error; of several each has its own."""
        self._check_serving()
        response = pb.CommitResponse()
        room = _ANSWER_BYTES if len(request.transactions) > 1 else MESSAGE_BYTES
        waiting = self._enqueue(request, actor)
        try:
            for one in waiting:
                try:
                    answer = await one.answer
                except Exception as error:
                    if len(waiting) == 1:
                        raise
                    status = to_status(_said(error))
                    if status.ByteSize() > room:
                        del status.details[1:]
                        status.message = status.message[:_CUT_LETTERS]
                    room -= status.ByteSize()
                    response.results.add(error=status)
                else:
                    room = _answer(response.results.add(), answer, request.want, room)
        finally:
            # Where the caller has gone, what has not begun is left.
            for one in waiting:
                one.abandon()
        return response

    def key_of(self, operation: pb.Operation) -> Key:
        """Which object an operation is about, for asking permission; "" for a generated name."""
        return commit.key_of(self.schema, operation)

    async def compact(self, revision: int) -> None:
        """Forgets the past before `revision`."""
        revision = min(revision, self._replica.head)
        if revision > self._replica.compacted:
            self._replica.forget(revision)
            await self._store.compact(revision)

    # The writer.

    def _enqueue(self, request: pb.CommitRequest, actor: str) -> Sequence[_Waiting]:
        size = request.ByteSize()
        count = len(self._queue) + len(request.transactions)
        if count > _QUEUE_TRANSACTIONS or self._queued_bytes + size > _QUEUE_BYTES:
            said = "too many transactions are waiting"
            raise ApiError(Reason.EXHAUSTED, said, retry_seconds=1.0)
        loop = asyncio.get_running_loop()
        waiting = [
            _Waiting(one, actor, request.dry_run, one.ByteSize(), loop.create_future())
            for one in request.transactions
        ]
        self._queue.extend(waiting)
        self._queued_bytes += sum(one.size for one in waiting)
        self._wanted.set()
        return waiting

    def _take(self) -> Sequence[_Waiting]:
        """The next batch; those whose callers have gone are left out."""
        batch: list[_Waiting] = []
        operations = size = 0
        while self._queue:
            one = self._queue[0]
            # What changes the kinds is evaluated, and told, by itself.
            alone = any(it.ref.kind == upload.SCHEMA for it in one.transaction.operations)
            if batch and alone:
                break
            operations += len(one.transaction.operations)
            size += one.size
            if batch and (operations > _BATCH_OPERATIONS or size > _BATCH_BYTES):
                break
            self._queue.popleft()
            self._queued_bytes -= one.size
            if not one.answer.done():
                batch.append(one)
                if alone:
                    break
        return batch

    async def _write(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._queue:
                batch = self._take()
                # Whoever else has something to do comes first: a batch takes a while.
                await self._clock.sleep(0)
                try:
                    await self._commit_batch(batch)
                except BaseException as error:
                    said = f"the write may have been applied: the server stops: {error!r}"
                    for one in batch:
                        one.settle(ApiError(Reason.UNAVAILABLE, said))
                    raise

    async def _commit_batch(self, batch: Sequence[_Waiting]) -> None:
        """Commits and answers; again on a newer state where somebody else was faster."""
        while True:
            async with self._forward:
                try:
                    answers = await self._attempt(batch)
                except Conflict:
                    await self._catch_up_or_recover()
                    continue
                except TooLarge as error:
                    if len(batch) > 1:
                        half = len(batch) // 2
                        self._put_back(batch[half:])
                        batch = batch[:half]
                        continue
                    answers = [ApiError(Reason.INVALID, f"the transaction is too large: {error}")]
            break
        for one, answer in zip(batch, answers, strict=True):
            one.settle(answer)

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        """What was taken too early is next."""
        self._queue.extendleft(reversed(batch))
        self._queued_bytes += sum(one.size for one in batch)

    async def _attempt(self, batch: Sequence[_Waiting]) -> Sequence[_Answer | Exception]:
        """Evaluates transactions one after another, and appends what they did with one sync."""
        draft = Draft(self._replica.state)
        head = self._replica.head
        time = max(self._clock.now(), self._replica.time)
        changes: list[Change] = []
        # Answered when all is durable: also a refusal may rest on what is not so yet.
        answers: list[_Answer | Exception] = []
        fresh: dict[tuple[str, str], _Answer] = {}
        for one in batch:
            identity = one.actor, one.transaction.request_id
            try:
                known = fresh.get(identity) or await self._repeated(one)
                if known is not None:
                    answers.append(known)
                    continue
                done = commit.evaluate(
                    self._setting,
                    draft,
                    one.transaction,
                    one.actor,
                    head + 1,
                    time,
                    one.dry_run,
                )
            except Exception as error:
                # A refusal is the caller's to know; so is a fault of ours. Nothing is left of his
                # transaction, and the others don't suffer for it.
                answers.append(error)
                continue
            if one.dry_run or not done.changes:
                answers.append(_Answer(head, done.results))
                continue
            head += 1
            draft.fold(done.draft)
            changes += done.changes
            answers.append(_Answer(head, done.results))
            if one.transaction.request_id:
                fresh[identity] = _Answer(head, done.results)
        failure = await self._append(changes, head, time) if changes else None
        return answers if failure is None else [failure] * len(answers)

    async def _append(self, changes: Sequence[Change], head: int, time: float) -> ApiError | None:
        """Makes changes durable, then seen; returns why none can be said to be applied."""
        self._asked_at = self._clock.monotonic()
        try:
            await self._store.append([one.record for one in changes], self._keep(changes))
        except Full as error:
            return ApiError(Reason.EXHAUSTED, f"the disk is full: {error}", retry_seconds=5.0)
        except (Conflict, TooLarge):
            raise
        except Exception as error:
            await self._recover(error)
            said = f"the write may have been applied: it could not be synced to disk: {error}"
            return ApiError(Reason.UNAVAILABLE, said)
        finally:
            self._asked_at = None
        before = self.schema
        self._replica.show(changes, head, time)
        for one in changes:
            self._note(one.record, self.schema)
        self._feed.publish(changes, head, time)
        if self.schema is not before:
            self._turn(before)
        return None

    def _turn(self, before: Schema) -> None:
        """Other kinds are served than `before`."""
        for name in self._mortal.keys() - self.schema.kinds.keys():
            del self._mortal[name]
        self._feed.turn()
        # What is remembered of the message types that are no more would keep them all.
        layout.layout_of.cache_clear()

    def _keep(self, changes: Iterable[Change]) -> dict[Key, int]:
        """How many old revisions stay of those objects whose kind limits them."""
        kinds = self.schema.kinds
        kept: dict[Key, int] = {}
        for one in changes:
            limit = kinds[one.record.key.kind].keep_revisions
            if limit is not None:
                kept[one.record.key] = limit
        return kept

    def _note(self, record: Record, schema: Schema) -> None:
        """Takes note of what a record says besides the object."""
        if record.request_id:
            self._remember(record.actor, record.request_id, record.revision, record.time)
        kind = schema.kinds.get(record.key.kind)
        if kind is not None and kind.ttl_seconds:
            mortal = self._mortal.setdefault(kind.name, {})
            mortal.pop(record.key, None)
            if record.verb is not Verb.DELETE:
                mortal[record.key] = record.time

    def _remember(self, actor: str, request_id: str, revision: int, time: float) -> None:
        identity = actor, request_id
        if time >= self._remembered_since and identity not in self._remembered:
            self._remembered_at.append((time, identity))
            self._remembered[identity] = revision

    async def _repeated(self, one: _Waiting) -> _Answer | None:
        """What a transaction was answered that is asked for again."""
        request_id = one.transaction.request_id
        revision = self._remembered.get((one.actor, request_id)) if request_id else None
        if revision is None or one.dry_run:
            return None
        records = await self._store.transaction(revision)
        done = {record.ordinal: record for record in records}
        results = []
        for ordinal, operation in enumerate(one.transaction.operations):
            record = done.get(ordinal)
            if record is not None:
                results.append(commit.Result(record.body, True))
                continue
            key = self.key_of(operation)
            if not key.name:
                said = f"it was done already, as revision {revision}"
                raise ApiError(Reason.GONE, f"{said}; what it made is no longer kept")
            # It changed nothing, or its record was let go: then what is there must do.
            let_go = revision <= self._replica.compacted or not self._replica.remembers(key.kind)
            stored = self._replica.get(key)
            results.append(commit.Result(stored.body if stored is not None else b"", let_go))
        return _Answer(revision, tuple(results))

    # What others have written.

    async def _follow(self, tail: Tail) -> None:
        """Shows what others append."""
        while True:
            try:
                head = await tail.moved(self._replica.head)
            except ApiError as error:
                async with self._forward:
                    await self._recover(error)
                continue
            async with self._forward:
                # What was appended here has been shown by now.
                if head > self._replica.head:
                    await self._catch_up_or_recover()

    async def _be_current(self) -> None:
        """What is read from here on is at least what was there when it was called."""
        self._check_serving()
        tail = self._store.tail
        if tail is not None and await tail.head() > self._replica.head:
            async with self._forward:
                # Where it fails, the tail's own task knows what to do.
                await self._catch_up()
            self._check_serving()

    async def _catch_up_or_recover(self) -> None:
        try:
            await self._catch_up()
        except Exception as error:
            await self._recover(error)

    async def _catch_up(self) -> None:
        """Shows what is new in the log, in pages that end where a revision ends."""
        page: list[Record] = []
        async with contextlib.aclosing(self._store.since(self._replica.head)) as records:
            async for record in records:
                full = len(page) >= _FOLLOWED_RECORDS
                if full and record.revision != page[-1].revision:
                    self._show(page)
                    page = []
                page.append(record)
        if page:
            self._show(page)

    def _show(self, records: Sequence[Record]) -> None:
        before = self.schema
        changes = self._replica.follow(records)
        for record in records:
            self._note(record, self.schema)
        self._feed.publish(changes, self._replica.head, self._replica.time)
        if self.schema is not before:
            self._turn(before)

    # Opening, and opening again.

    async def _replay_when_there(self) -> None:
        while True:
            try:
                await self._replay()
                return
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    raise
                log.warning("the store cannot be opened now: %s", error)
                said = f"the store is being opened: {error}"
                self._failed = ApiError(Reason.UNAVAILABLE, said)
            await self._clock.sleep(_REOPEN_SECONDS)

    async def _replay(self) -> None:
        self._opened = await self._store.open()
        self._remembered.clear()
        self._remembered_at.clear()
        self._mortal.clear()
        self._remembered_since = self._opened.time - REMEMBERED_SECONDS
        await self._replica.replay(self._opened, self._note)
        for request in await self._store.requests():
            self._remember(*request)
        self._remembered_at = deque(sorted(self._remembered_at))

    async def _recover(self, cause: Exception) -> None:
        """Opens the store again after a failure that leaves unknown what it holds."""
        self._failed = ApiError(
            Reason.UNAVAILABLE, f"the store failed and is being opened again: {cause}"
        )
        seen, state, before = self._replica.head, self._replica.state, self.schema
        while True:
            await self._replay_when_there()
            if self._replica.head < seen:
                raise Refused(
                    f"the store ends at revision {self._replica.head}, but revision {seen} was "
                    "acknowledged: it has lost writes"
                )
            try:
                records = [record async for record in self._replica.since(seen)]
                break
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    raise
        changes = self._replica.changes(records, state)
        self._failed = None
        if changes:
            self._feed.publish(changes, self._replica.head, self._replica.time)
        if self.schema is not before:
            self._turn(before)

    # Housekeeping.

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(self._retention.every_seconds)
            if self._failed is not None:
                continue
            now = self._clock.now()
            self._forget_requests(now)
            # While the disk is full or far away, this must wait too.
            with contextlib.suppress(Full, ApiError):
                await self._bury(now)
                await self._let_go(now)

    async def _let_go(self, now: float) -> None:
        """Compacts what is older than is promised."""
        try:
            oldest = await self._replica.revision_at(now - self._retention.seconds)
            await self.compact(max(oldest, self._replica.head - self._retention.revisions))
        except (Full, ApiError):
            raise
        except Exception as error:
            # As with a write, nobody knows what is on the disk. Where the writer has found that
            # out meanwhile, and opened the store again, all is well.
            async with self._forward:
                if self._failed is None:
                    await self._recover(error)

    def _forget_requests(self, now: float) -> None:
        known = self._remembered_at
        self._remembered_since = max(self._remembered_since, now - REMEMBERED_SECONDS)
        while known and known[0][0] < self._remembered_since:
            self._remembered.pop(known.popleft()[1], None)

    async def _bury(self, now: float) -> None:
        """Deletes objects that have lived their time."""
        for name, mortal in list(self._mortal.items()):
            kind = self.schema.kinds.get(name)
            if kind is None or not kind.ttl_seconds:
                continue
            born_before = now - kind.ttl_seconds
            expired = [key for key, written in mortal.items() if written <= born_before]
            for start in range(0, len(expired), _BURIED_AT_ONCE):
                request = pb.CommitRequest(want=pb.WANT_NOTHING)
                for key in expired[start : start + _BURIED_AT_ONCE]:
                    stored = self._replica.get(key)
                    if stored is not None:
                        operation = request.transactions.add().operations.add()
                        operation.ref.CopyFrom(pb.Ref(kind=key[0], namespace=key[1], name=key[2]))
                        # Not if it is written again meanwhile.
                        operation.delete.revision = stored.revision
                # What fails is tried again next time.
                with contextlib.suppress(ApiError):
                    await self.commit(request, _ACTOR)

    def _check_serving(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _stop(self, error: ApiError) -> None:
        """Answers nothing more."""
        self._failed = error
        self._feed.close(error)
        while self._queue:
            self._queue.popleft().settle(error)


def _answer(result: pb.TransactionResult, answer: _Answer, want: int, room: int) -> int:
    """Writes an answer into a response that has so much room; returns what is left of it."""
    result.revision = answer.revision
    if want == pb.WANT_NOTHING:
        return room
    for done in answer.results:
        added = result.operations.add(changed=done.changed, warnings=done.warnings)
        if want != pb.WANT_OBJECTS:
            continue
        if len(done.body) <= room:
            room -= len(done.body)
            added.object = done.body
        else:
            added.warnings.append("the object is left out: the answer would be too large; get it")
    return room


def _said(error: Exception) -> ApiError:
    """The error as one of several results; alone, a fault of ours is raised as it is."""
    if isinstance(error, ApiError):
        return error
    return ApiError(Reason.UNAVAILABLE, f"the server failed on this transaction: {error!r}")


def _not_open() -> ApiError:
    return ApiError(Reason.UNAVAILABLE, "the kernel is not open")
