"""Commit: one transaction, evaluated on a state.

`evaluate(setting, view, transaction, …)` answers with an `Outcome`, the changes and the results, or
raises ApiError; the state itself is left alone. Evaluation is a function of its arguments: no
clock, no store, and randomness only from the `Chance` in the setting.

A write is: decode, names and uid, admission, defaults, claims, checks, generation, owners of
fields, revision, encode. Knows no kind but through the schema.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.kernel import admit, apply, claim, mask, patch, path, upload
from kcore.kernel.constraint import Found
from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.kernel.schema import Kind, Schema, Subresource
from kcore.kernel.state import Draft, parent_of, stored_from
from kcore.kernel.view import View
from kcore.wire.errors import ApiError, Reason, Violation, invalid

TRANSACTION_OPERATIONS: Final = 512
TRANSACTION_BYTES: Final = 3 << 20
# What a transaction changes makes one revision, which is never split over messages to watchers, and
# callers take messages of 4 MiB: with what stands around 1,000 objects it fits.
REVISION_BYTES: Final = (4 << 20) - (128 << 10)

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"

_GENERATED_PREFIX: Final = 58
_GENERATED_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """What evaluation needs besides a state."""

    # By kind: what creating one implies.
    admission: Mapping[str, admit.Admit]
    chance: Chance
    # Reads and writes JSON, for patches; without it there are only merges.
    codec: patch.Codec | None = None
    # By kind and subresource: what deleting through it implies.
    leaving: Mapping[str, admit.Leave] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one operation."""

    # The object as stored; of a deletion, as it was.
    body: bytes
    changed: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction; without changes it made no revision."""

    changes: tuple[Change, ...]
    results: tuple[Result, ...]
    draft: Draft


def evaluate(
    setting: Setting,
    view: View,
    transaction: pb.Transaction,
    actor: str,
    revision: int,
    time: float,
    dry_run: bool = False,
) -> Outcome:
    """Evaluates a transaction that would make `revision` at `time` (seconds since 1970)."""
    for count, what in (
        (len(transaction.operations), "operations"),
        (len(transaction.guards), "guards"),
    ):
        if count > TRANSACTION_OPERATIONS:
            said = f"{count} {what} in a transaction: at most {TRANSACTION_OPERATIONS} are allowed"
            raise ApiError(Reason.EXHAUSTED, said)
    if transaction.ByteSize() > TRANSACTION_BYTES:
        said = f"a transaction of {transaction.ByteSize()} bytes"
        raise ApiError(Reason.EXHAUSTED, f"{said}: at most {TRANSACTION_BYTES} are allowed")
    if not 0 <= transaction.because < revision:
        said = f"revision {transaction.because} is not before this write"
        raise ApiError(Reason.INVALID, f"because: {said}", [Violation("because", said)])
    attempt = _Attempt(setting, view, transaction, actor, revision, time, dry_run)
    for guard in transaction.guards:
        attempt.guard(guard)
    results = []
    for ordinal, operation in enumerate(transaction.operations):
        try:
            results.append(attempt.operate(ordinal, operation))
        except ApiError as error:
            if len(transaction.operations) > 1:
                error.metadata.setdefault("operation", str(ordinal))
            raise
        if attempt.bytes > REVISION_BYTES:
            said = f"the objects that a transaction changes weigh more than {REVISION_BYTES} bytes"
            raise ApiError(Reason.EXHAUSTED, f"{said}: make several transactions of it")
    attempt.settle()
    return Outcome(tuple(_in_order(attempt.changes)), tuple(results), attempt.draft)


def _in_order(changes: Sequence[Change]) -> Sequence[Change]:
    """The changes as the log has them, what was done besides after all that was asked for.

    Refuses what would be read back in another order than it was done.
    """
    if all(one.record.ordinal < two.record.ordinal for one, two in pairwise(changes)):
        return changes
    last: dict[Key, int] = {}
    for change in changes:
        record = change.record
        if record.ordinal < last.get(record.key, -1):
            said = f"{record.key} is changed by what an earlier operation does besides"
            raise ApiError(Reason.INVALID, f"operations[{record.ordinal}]: {said}")
        last[record.key] = record.ordinal
    return sorted(changes, key=lambda change: change.record.ordinal)


def key_of(schema: Schema, operation: pb.Operation) -> Key:
    """Which object an operation is about; its name is "" where it is still to be generated.

    It is what `evaluate` goes by, so permission may be asked by it.
    """
    kind = schema.kind(operation.ref.kind)
    metadata = None
    which = operation.WhichOneof("do")
    if which in ("create", "update"):
        metadata = admit.parse(kind, getattr(operation, which)).metadata
    elif which == "apply":
        metadata = admit.parse(kind, operation.apply.object).metadata
    return _identify(kind, operation.ref, metadata)


class _Attempt:
    """One transaction under evaluation."""

    def __init__(
        self,
        setting: Setting,
        view: View,
        transaction: pb.Transaction,
        actor: str,
        revision: int,
        time: float,
        dry_run: bool,
    ) -> None:
        self._below = view
        self._schema = view.schema
        self._admission = setting.admission
        self._leaving = setting.leaving
        self._chance = setting.chance
        self._codec = setting.codec
        self._actor = actor
        self._manager = transaction.manager or actor
        self._because = transaction.because
        self._request_id = transaction.request_id
        self._revision = revision
        self._time = time
        self._dry_run = dry_run
        # What the kernel does besides comes after all operations.
        self._extra_ordinal = len(transaction.operations)
        self.draft = Draft(view)
        self.changes: list[Change] = []
        # Of all changes' objects.
        self.bytes = 0
        # Schemas that are changed, with the first operation that did it.
        self._schemas: dict[str, int] = {}

    def guard(self, guard: pb.Guard) -> None:
        """Raises CONFLICT where the guard does not hold."""
        kind = self._schema.kind(guard.ref.kind)
        key = _identify(kind, guard.ref, None)
        stored = self.draft.get(key)
        which = guard.WhichOneof("guard")
        subject = f'{kind.resource} "{key.name}"'
        if which == "absent":
            if guard.absent == (stored is None):
                return
            said = "it exists" if guard.absent else "it does not exist"
        elif stored is None:
            said = "it does not exist"
        elif which == "revision":
            if stored.revision == guard.revision:
                return
            said = f"it is at revision {stored.revision}, not {guard.revision}"
        elif which == "uid":
            if stored.uid == guard.uid:
                return
            said = f'its uid is "{stored.uid}", not "{guard.uid}"'
        elif which == "field":
            found = _read_field(kind, kind.parse(stored.body), guard.field.path)
            if found == guard.field.value:
                return
            said = f'{guard.field.path} is "{found}", not "{guard.field.value}"'
        else:
            raise _bad_request("guards", "a guard must say what it guards")
        raise ApiError(Reason.CONFLICT, f"guard failed on {subject}: {said}")

    def settle(self) -> None:
        """Refuses Schemas whose kinds can't be served."""
        if self._schemas:
            kind = self._schema.kind(upload.SCHEMA)
            upload.settle(kind, self._below, self.draft, tuple(self._schemas), self._revision)

    def operate(self, ordinal: int, operation: pb.Operation) -> Result:
        """Does one operation."""
        kind = self._schema.kind(operation.ref.kind)
        door: Subresource | None = None
        if operation.subresource:
            door = kind.subresources.get(operation.subresource)
            if door is None:
                said = f'{kind.resource} have no subresource "{operation.subresource}"'
                raise ApiError(Reason.NOT_FOUND, said)
        which = operation.WhichOneof("do")
        if which == "create":
            return self._create(ordinal, kind, operation, door)
        if which == "update":
            return self._update(ordinal, kind, operation, door)
        if which == "apply":
            return self._apply(ordinal, kind, operation, door)
        if which == "patch":
            return self._patch(ordinal, kind, operation, door)
        if which == "delete":
            return self._delete(ordinal, kind, operation, door)
        raise _bad_request("operations", "an operation must say what to do")

    def _create(
        self, ordinal: int, kind: Kind, operation: pb.Operation, door: Subresource | None
    ) -> Result:
        if door is not None:
            raise _bad_request("subresource", f"{kind.plural}/{door.name} cannot be created")
        new = admit.parse(kind, operation.create)
        admit.refuse_unknown(kind, new, operation.create)
        key = _identify(kind, operation.ref, new.metadata)
        if not key.name:
            key = self._generated(kind, key, new.metadata.generate_name)
        if new.metadata.resource_version:
            said = "must not be set on objects to be created"
            raise invalid(kind.subject(key.name), [Violation("metadata.resourceVersion", said)])
        return self._make(ordinal, kind, key, new, tracked=True)

    def _update(
        self, ordinal: int, kind: Kind, operation: pb.Operation, door: Subresource | None
    ) -> Result:
        new = admit.parse(kind, operation.update)
        key = _identify(kind, operation.ref, new.metadata)
        stored, old = self._stored(kind, key)
        admit.refuse_unknown(kind, new, operation.update, old)
        _check_preconditions(kind, key, new.metadata, old.metadata)
        return self._replace(ordinal, kind, key, stored, old, new, door)

    def _patch(
        self, ordinal: int, kind: Kind, operation: pb.Operation, door: Subresource | None
    ) -> Result:
        key = _identify(kind, operation.ref, None)
        stored, old = self._stored(kind, key)
        if operation.patch.WhichOneof("patch") == "merge":
            merged = operation.patch.merge.object
            admit.refuse_unknown(kind, admit.parse(kind, merged), merged)
        new = patch.patch(kind, old, operation.patch, self._codec)
        _identify(kind, operation.ref, new.metadata)
        _check_preconditions(kind, key, new.metadata, old.metadata)
        return self._replace(ordinal, kind, key, stored, old, new, door)

    def _apply(
        self, ordinal: int, kind: Kind, operation: pb.Operation, door: Subresource | None
    ) -> Result:
        applied = admit.parse(kind, operation.apply.object)
        admit.refuse_unknown(kind, applied, operation.apply.object)
        key = _identify(kind, operation.ref, applied.metadata)
        if not key.name:
            said = (
                "cannot use generate name with apply"
                if applied.metadata.generate_name
                else "Required value"
            )
            raise invalid(kind.subject(""), [Violation("metadata.name", said)])
        stored = self.draft.get(key)
        through = door.name if door is not None else ""
        if door is not None and door.name != "status":
            # Of what is applied, nothing counts but what the door leads to.
            identity = mask.compile_mask(
                kind.message.DESCRIPTOR,
                [*door.mask.paths()],
                identity=True,
            )
            mask.prune(applied, identity)
        if stored is None:
            if door is not None:
                raise not_found(kind, key)
            _check_absent(kind, key, applied.metadata)
            new = apply.apply(kind, None, applied, self._manager, operation.apply.force, self._time)
            return self._make(ordinal, kind, key, new, tracked=False)
        old = kind.parse(stored.body)
        _check_preconditions(kind, key, applied.metadata, old.metadata)
        new = apply.apply(
            kind,
            old,
            applied,
            self._manager,
            operation.apply.force,
            self._time,
            subresource=through,
        )
        return self._finish(ordinal, kind, key, stored, old, new, through, tracked=False)

    def _make(self, ordinal: int, kind: Kind, key: Key, new: Any, tracked: bool) -> Result:
        """Stores a new object."""
        if self.draft.get(key) is not None:
            said = f'{kind.resource} "{key.name}" already exists'
            raise ApiError(Reason.ALREADY_EXISTS, said)
        self._check_parent(kind, key)
        metadata = new.metadata
        metadata.name, metadata.uid = key.name, self._chance.uid()
        if kind.namespaced:
            metadata.namespace = key.namespace
        metadata.creation_timestamp.Clear()
        metadata.creation_timestamp.seconds = int(self._time)
        metadata.generation = 1
        for name in ("deletion_timestamp", "deletion_grace_period_seconds", "self_link"):
            metadata.ClearField(name)
        if kind.has_status:
            new.ClearField("status")
        return self._finish(ordinal, kind, key, None, None, new, "", tracked)

    def _replace(
        self,
        ordinal: int,
        kind: Kind,
        key: Key,
        stored: Stored,
        old: Any,
        given: Any,
        door: Subresource | None,
    ) -> Result:
        """Stores another version of an object, as far as it is for the door to write."""
        if door is None:
            if kind.has_status:
                given.ClearField("status")
                if old.HasField("status"):
                    given.status.CopyFrom(old.status)
            return self._finish(ordinal, kind, key, stored, old, given, "", tracked=True)
        new = kind.message()
        new.CopyFrom(old)
        mask.merge(given, new, door.mask)
        return self._finish(ordinal, kind, key, stored, old, new, door.name, tracked=True)

    def _finish(
        self,
        ordinal: int,
        kind: Kind,
        key: Key,
        stored: Stored | None,
        old: Any,
        new: Any,
        through: str,
        tracked: bool,
    ) -> Result:
        """Completes, checks and stores `new`; `old` is None where the object is made."""
        violations: list[Violation] = []
        if old is not None:
            _restore(new.metadata, old.metadata, owners=tracked)
        if not through:
            violations += admit.check_exclusive(kind, new, old)
        implied = self._admission.get(kind.name) if not through else None
        refused, changed = admit.complete(kind, new, old, implied, self._read)
        violations += refused
        if kind.claims and changed:
            found: Found = []
            claim.settle(self.draft, kind, key, new, old, found)
            violations += [Violation(place, said) for place, said in found]
            if old is not None:
                changed = admit.changed_fields(kind, new, old)
        if stored is not None and not changed and not violations:
            return Result(stored.body, False)
        more, unserved = admit.check(kind, new, old, changed)
        if violations or more:
            raise invalid(kind.subject(key.name), [*violations, *more])
        if kind.name == upload.SCHEMA:
            upload.check(kind, key.name, new.spec.descriptors, self._schema)
            upload.describe(new, old, self._schema, self._revision, int(self._time))
        if old is not None and not kind.generation_fields.isdisjoint(changed):
            new.metadata.generation = old.metadata.generation + 1
        if tracked:
            apply.track(kind, old, new, self._manager, apply.UPDATE, through, self._time)
        if old is not None and self._complete(kind, key, new.metadata):
            body = self._remove(ordinal, kind, key, stored, new, through)
        else:
            body = self._store(ordinal, kind, key, stored, new, through)
        said = [f"{place}: stored, but not acted on" for place in unserved]
        return Result(body, True, tuple(said))

    def _delete(
        self, ordinal: int, kind: Kind, operation: pb.Operation, door: Subresource | None
    ) -> Result:
        wish = operation.delete
        key = _identify(kind, operation.ref, None)
        stored, new = self._stored(kind, key)
        if wish.uid and wish.uid != stored.uid:
            raise _precondition(kind, key, "UID", wish.uid, stored.uid)
        if wish.revision and wish.revision != stored.revision:
            raise _precondition(
                kind, key, "resourceVersion", str(wish.revision), str(stored.revision)
            )
        through = "" if door is None else door.name
        if door is not None:
            self._leave(kind, new, door)
        metadata = new.metadata
        deleting = metadata.HasField("deletion_timestamp")
        if not deleting and (said := admit.check_deletion(kind, new)):
            forbidden = f'{kind.resource} "{key.name}" is forbidden: {said}'
            raise ApiError(Reason.FORBIDDEN, forbidden)
        finalizer = {pb.PROPAGATION_FOREGROUND: FOREGROUND, pb.PROPAGATION_ORPHAN: ORPHAN}.get(
            wish.propagation
        )
        moved = False
        if finalizer is not None and finalizer not in metadata.finalizers:
            kept = [one for one in metadata.finalizers if one not in (FOREGROUND, ORPHAN)]
            metadata.finalizers[:] = [*kept, finalizer]
            moved = True
        if not deleting:
            grace = self._grace(kind, new, wish, None)
            metadata.deletion_timestamp.seconds = int(self._time) + grace
            metadata.deletion_grace_period_seconds = grace
            moved = True
        else:
            before = metadata.deletion_grace_period_seconds
            grace = self._grace(kind, new, wish, before)
            if grace < before:
                # The clock began to run when deletion did.
                metadata.deletion_timestamp.seconds += grace - before
                metadata.deletion_grace_period_seconds = grace
                moved = True
        if self._complete(kind, key, metadata):
            return Result(self._remove(ordinal, kind, key, stored, new, through), True)
        if not moved:
            return Result(stored.body, False)
        return Result(self._store(ordinal, kind, key, stored, new, through), True)

    def _leave(self, kind: Kind, message: Any, door: Subresource) -> None:
        """What deleting through a door implies for the object and for others."""
        leave = self._leaving.get(f"{kind.name}/{door.name}")
        if leave is None:
            raise _bad_request("subresource", f"{kind.plural}/{door.name} cannot be deleted")
        for changed in leave(message, self._others, self._time):
            other = self._schema.kind(changed.DESCRIPTOR.full_name)
            key = Key(other.name, changed.metadata.namespace, changed.metadata.name)
            stored, old = self._stored(other, key)
            ordinal, self._extra_ordinal = self._extra_ordinal, self._extra_ordinal + 1
            self._finish(ordinal, other, key, stored, old, changed, "status", tracked=True)

    def _grace(self, kind: Kind, message: Any, wish: pb.Delete, before: int | None) -> int:
        """Seconds until the deletion is forced; it only gets shorter."""
        graceful = kind.graceful
        if graceful is None:
            return 0
        activation = graceful.seconds.bind(message)
        if graceful.immediate is not None and graceful.immediate.holds(activation) is True:
            return 0
        if wish.HasField("grace_seconds"):
            asked = max(wish.grace_seconds, 0)
        elif before is not None:
            return before
        else:
            said = graceful.seconds.evaluate(activation)
            asked = max(said, 0) if isinstance(said, int) else 0
        return asked if before is None else min(asked, before)

    def _complete(self, kind: Kind, key: Key, metadata: Any) -> bool:
        """Whether nothing holds the object any more."""
        return (
            metadata.HasField("deletion_timestamp")
            and not metadata.finalizers
            and (kind.graceful is None or metadata.deletion_grace_period_seconds == 0)
            and not self.draft.children(key)
        )

    def _store(
        self,
        ordinal: int,
        kind: Kind,
        key: Key,
        before: Stored | None,
        new: Any,
        through: str,
    ) -> bytes:
        body = self._encode(kind, before, new)
        after = stored_from(kind, key, self._revision, body, new)
        verb = Verb.CREATE if before is None else Verb.UPDATE
        self._record(ordinal, key, verb, body, before, after, through)
        return body

    def _remove(
        self,
        ordinal: int,
        kind: Kind,
        key: Key,
        before: Stored | None,
        last: Any,
        through: str,
    ) -> bytes:
        body = self._encode(kind, before, last)
        self._record(ordinal, key, Verb.DELETE, body, before, None, through)
        parent = parent_of(kind, key)
        if parent is not None and not self.draft.children(parent):
            self._release(parent)
        return body

    def _release(self, key: Key) -> None:
        """The last child is gone: so is a parent that waited for it."""
        stored = self.draft.get(key)
        if stored is None or not stored.deleting:
            return
        kind = self._schema.kind(key.kind)
        last = kind.parse(stored.body)
        if self._complete(kind, key, last.metadata):
            ordinal, self._extra_ordinal = self._extra_ordinal, self._extra_ordinal + 1
            self._remove(ordinal, kind, key, stored, last, "")

    def _encode(self, kind: Kind, before: Stored | None, message: Any) -> bytes:
        metadata = message.metadata
        if not self._dry_run:
            metadata.resource_version = str(self._revision)
        elif before is None:
            # Nothing is stored, so there is no version of it.
            metadata.ClearField("resource_version")
        body: bytes = message.SerializeToString(deterministic=True)
        if len(body) > admit.OBJECT_BYTES:
            raise admit.too_large(kind, len(body))
        return body

    def _record(
        self,
        ordinal: int,
        key: Key,
        verb: Verb,
        body: bytes,
        before: Stored | None,
        after: Stored | None,
        through: str,
    ) -> None:
        record = Record(
            revision=self._revision,
            key=key,
            uid=after.uid if after is not None else before.uid if before is not None else "",
            verb=verb,
            body=body,
            actor=self._actor,
            because=self._because,
            time=self._time,
            request_id=self._request_id,
            manager=self._manager,
            subresource=through,
            ordinal=ordinal,
        )
        if key.kind == upload.SCHEMA:
            self._schemas.setdefault(key.name, ordinal)
        self.draft.put(key, before, after)
        self.changes.append(Change(record, before, after))
        self.bytes += len(body)

    def _stored(self, kind: Kind, key: Key) -> tuple[Stored, Any]:
        stored = self.draft.get(key)
        if stored is None:
            raise not_found(kind, key)
        return stored, kind.parse(stored.body)

    def _others(self, kind_name: str, namespace: str) -> Iterator[Any]:
        kind = self._schema.kind(kind_name)
        for stored in list(self.draft.objects(kind_name, namespace)):
            yield kind.parse(stored.body)

    def _read(self, kind_name: str, namespace: str, name: str) -> Any:
        stored = self.draft.get(Key(kind_name, namespace, name))
        return self._schema.kind(kind_name).parse(stored.body) if stored is not None else None

    def _check_parent(self, kind: Kind, key: Key) -> None:
        parent = parent_of(kind, key)
        if parent is None or parent.kind not in self._schema.kinds:
            return
        parent_kind = self._schema.kinds[parent.kind]
        stored = self.draft.get(parent)
        if stored is None:
            raise not_found(parent_kind, parent)
        if stored.deleting:
            said = (
                f'{kind.resource} "{key.name}" is forbidden: unable to create new content in '
                f"{parent_kind.short_name.lower()} {parent.name} because it is being terminated"
            )
            raise ApiError(Reason.FORBIDDEN, said)

    def _generated(self, kind: Kind, key: Key, prefix: str) -> Key:
        if not prefix:
            said = "Required value: name or generateName is required"
            raise invalid(kind.subject(""), [Violation("metadata.name", said)])
        for _ in range(_GENERATED_TRIES):
            drawn = key._replace(name=prefix[:_GENERATED_PREFIX] + self._chance.suffix())
            if self.draft.get(drawn) is None:
                return drawn
        said = f'{kind.resource} "{prefix}": the server could not find a name that is not taken'
        raise ApiError(Reason.ALREADY_EXISTS, said)


def not_found(kind: Kind, key: Key) -> ApiError:
    """The error for an object that is not there."""
    metadata = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
    return ApiError(Reason.NOT_FOUND, f'{kind.resource} "{key.name}" not found', metadata=metadata)


def _identify(kind: Kind, ref: pb.Ref, metadata: Any) -> Key:
    """The key that a reference and an object say together."""
    namespace, name = ref.namespace, ref.name
    violations: list[Violation] = []
    if metadata is not None:
        for part, said, given in (
            ("namespace", ref.namespace, metadata.namespace),
            ("name", ref.name, metadata.name),
        ):
            if said and given and said != given:
                wrong = f'Invalid value: "{given}": does not match "{said}" of the request'
                violations.append(Violation(f"metadata.{part}", wrong))
        namespace, name = namespace or metadata.namespace, name or metadata.name
    if kind.namespaced and not namespace:
        violations.append(Violation("metadata.namespace", "Required value"))
    if not kind.namespaced and namespace:
        said = f"must be empty: {kind.plural} do not live in a namespace"
        violations.append(Violation("metadata.namespace", f'Invalid value: "{namespace}": {said}'))
    if violations:
        raise invalid(kind.subject(name), violations)
    return Key(kind.name, namespace, name)


def _restore(new: Any, old: Any, owners: bool) -> None:
    """Puts back what of the metadata is the server's to say."""
    new.name, new.namespace, new.uid = old.name, old.namespace, old.uid
    if not old.namespace:
        new.ClearField("namespace")
    new.resource_version, new.generation = old.resource_version, old.generation
    for name in ("creation_timestamp", "deletion_timestamp"):
        new.ClearField(name)
        if old.HasField(name):
            getattr(new, name).CopyFrom(getattr(old, name))
    for name in ("deletion_grace_period_seconds", "generate_name", "self_link"):
        new.ClearField(name)
        if old.HasField(name):
            setattr(new, name, getattr(old, name))
    if owners:
        new.ClearField("managed_fields")
        new.managed_fields.MergeFrom(old.managed_fields)


def _check_preconditions(kind: Kind, key: Key, given: Any, old: Any) -> None:
    """A writer's uid and resourceVersion are guards."""
    if given.uid and given.uid != old.uid:
        raise _precondition(kind, key, "UID", given.uid, old.uid)
    if given.resource_version and given.resource_version != old.resource_version:
        raise _modified(kind, key)


def _check_absent(kind: Kind, key: Key, given: Any) -> None:
    """Who names a version or an uid means an object that was there."""
    if given.uid:
        raise _precondition(kind, key, "UID", given.uid, "")
    if given.resource_version:
        raise not_found(kind, key)


def _modified(kind: Kind, key: Key) -> ApiError:
    return ApiError(
        Reason.CONFLICT,
        f'Operation cannot be fulfilled on {kind.resource} "{key.name}": the object has been '
        "modified; please apply your changes to the latest version and try again",
    )


def _precondition(kind: Kind, key: Key, what: str, wanted: str, found: str) -> ApiError:
    return ApiError(
        Reason.CONFLICT,
        f'Operation cannot be fulfilled on {kind.resource} "{key.name}": Precondition failed: '
        f"{what} in precondition: {wanted}, {what} in object meta: {found}",
    )


def _bad_request(where: str, said: str) -> ApiError:
    return ApiError(Reason.INVALID, f"{where}: {said}", [Violation(where, said)])


def _read_field(kind: Kind, message: Any, text: str) -> str:
    """A field as text; "" where it is unset."""
    try:
        at = path.compile_path(message.DESCRIPTOR, text)
        found: Iterable[tuple[str, Any]] = path.values(message, at)
        said = [path.text(at.last, value) for _, value in found]
    except ValueError as error:
        raise _bad_request("guards", str(error)) from None
    return ",".join(said)
