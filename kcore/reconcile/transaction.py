"""What a controller wants done, as transactions.

`create(obj)`, `patch(live, wanted, mask)`, `replace(obj)`, `status(live, status)`, `delete(live)`
each give a transaction of one operation; `atomic(one, other)` makes several one. Writes to objects
that are there are guarded by their uid: a namesake is somebody else. With `unchanged=True` they are
guarded by their revision too, which whoever replaces a list or a map as a whole needs.
`remove` and `metadata` do the same for objects of kinds that are known only by name.

request_id, because and manager are the loop's to fill in. Pure.
"""

from collections.abc import Iterable, Sequence

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.reconcile import owner

BACKGROUND = pb.PROPAGATION_BACKGROUND
FOREGROUND = pb.PROPAGATION_FOREGROUND
ORPHAN = pb.PROPAGATION_ORPHAN


def ref(obj: Message) -> pb.Ref:
    """The name of an object."""
    meta = owner.metadata(obj)
    return pb.Ref(kind=obj.DESCRIPTOR.full_name, namespace=meta.namespace, name=meta.name)


def create(obj: Message, *, guards: Iterable[pb.Guard] = ()) -> pb.Transaction:
    """Makes it."""
    operation = pb.Operation(ref=ref(obj), create=obj.SerializeToString(deterministic=True))
    return pb.Transaction(guards=guards, operations=[operation])


def patch(
    live: Message,
    wanted: Message,
    mask: Sequence[str],
    *,
    unchanged: bool = False,
    guards: Iterable[pb.Guard] = (),
    subresource: str = "",
) -> pb.Transaction:
    """Makes the fields that `mask` names be as in `wanted`; what is absent there is removed."""
    merge = pb.Merge(
        object=wanted.SerializeToString(deterministic=True),
        mask=field_mask_pb2.FieldMask(paths=mask),
    )
    operation = pb.Operation(ref=ref(live), subresource=subresource, patch=pb.Patch(merge=merge))
    own = same(ref(live), owner.metadata(live), unchanged=unchanged)
    return pb.Transaction(guards=[*own, *guards], operations=[operation])


def replace(obj: Message) -> pb.Transaction:
    """Replaces the whole object, whose metadata.resourceVersion guards it."""
    operation = pb.Operation(ref=ref(obj), update=obj.SerializeToString(deterministic=True))
    return pb.Transaction(operations=[operation])


def status(live: Message, wanted: Message) -> pb.Transaction:
    """Makes the status be `wanted`, a status message of the object's kind."""
    fresh = type(live)()
    fresh.status.CopyFrom(wanted)  # type: ignore[attr-defined]
    return patch(live, fresh, ["status"], subresource="status")


def delete(
    live: Message,
    *,
    propagation: pb.Propagation = BACKGROUND,
    grace_seconds: int | None = None,
    unchanged: bool = False,
    guards: Iterable[pb.Guard] = (),
) -> pb.Transaction:
    """Deletes this very object."""
    return remove(
        ref(live),
        owner.metadata(live),
        propagation=propagation,
        grace_seconds=grace_seconds,
        unchanged=unchanged,
        guards=guards,
    )


def remove(
    target: pb.Ref,
    meta: meta_pb2.ObjectMeta,
    *,
    propagation: pb.Propagation = BACKGROUND,
    grace_seconds: int | None = None,
    unchanged: bool = False,
    guards: Iterable[pb.Guard] = (),
) -> pb.Transaction:
    """Deletes the object that has this metadata, whatever its kind."""
    asked = pb.Delete(
        propagation=propagation,
        uid=meta.uid,
        revision=int(meta.resource_version or 0) if unchanged else 0,
        grace_seconds=grace_seconds,
    )
    return pb.Transaction(guards=guards, operations=[pb.Operation(ref=target, delete=asked)])


def metadata(
    target: pb.Ref,
    live: meta_pb2.ObjectMeta,
    wanted: meta_pb2.ObjectMeta,
    mask: Sequence[str],
    *,
    guards: Iterable[pb.Guard] = (),
) -> pb.Transaction:
    """Changes metadata of an object of any kind that has not changed; `mask` below metadata."""
    merge = pb.Merge(
        object=_field_one(wanted.SerializeToString(deterministic=True)),
        mask=field_mask_pb2.FieldMask(paths=[f"metadata.{path}" for path in mask]),
    )
    operation = pb.Operation(ref=target, patch=pb.Patch(merge=merge))
    own = same(target, live, unchanged=True)
    return pb.Transaction(guards=[*own, *guards], operations=[operation])


def atomic(*transactions: pb.Transaction) -> pb.Transaction:
    """All of them or none, in one revision."""
    together = pb.Transaction()
    for transaction in transactions:
        together.guards.extend(transaction.guards)
        together.operations.extend(transaction.operations)
    return together


def same(target: pb.Ref, meta: meta_pb2.ObjectMeta, *, unchanged: bool = False) -> list[pb.Guard]:
    """Guards: it is still this object, and where `unchanged`, as it was."""
    guards = [pb.Guard(ref=target, uid=meta.uid)]
    if unchanged and meta.resource_version:
        guards.append(pb.Guard(ref=target, revision=int(meta.resource_version)))
    return guards


def absent(target: pb.Ref) -> pb.Guard:
    """Guard: there is no object of this name."""
    return pb.Guard(ref=target, absent=True)


def field_is(target: pb.Ref, path: str, value: object) -> pb.Guard:
    """Guard: a field of it, by JSON path, has this value."""
    return pb.Guard(ref=target, field=pb.FieldIs(path=path, value=str(value)))


def _field_one(body: bytes) -> bytes:
    """A message of which nothing is known but that `body` is its field 1."""
    length, size = bytearray(), len(body)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"\x0a" + bytes(length) + body
