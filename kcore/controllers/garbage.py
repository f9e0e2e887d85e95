"""Garbage: what nobody owns any more goes, of whatever kind.

An object goes when all its owners are gone; one that still has an owner stays, and forgets those
that are gone. An owner is meant by its uid: a namesake is somebody else. Where an owner is not in
the view, the deletion itself asks: it is guarded by the owner's name being free, or held by that
somebody else, so nothing is deleted for an owner that merely was not seen. Owners of kinds that
are not served can't be asked for: their objects stay.

Deletions that wait for children are carried out here too: with finalizer `foregroundDeletion` an
object's children go first and those that block it hold it; with `orphan` its children forget it.
Works on metadata alone; it must not know what any kind is. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.reconcile import transaction
from kcore.reconcile.controller import EVERY_KIND, NOTHING, Controller, Key, Result
from kcore.reconcile.view import Name, View

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class _Owners:
    """What became of an object's owners."""

    # Alive, and not waiting for their children to go.
    solid: tuple[meta_pb2.OwnerReference, ...] = ()
    # On their way out, once their children have gone.
    waiting: tuple[meta_pb2.OwnerReference, ...] = ()
    # Gone, with what proves it.
    gone: tuple[meta_pb2.OwnerReference, ...] = ()
    proofs: tuple[pb.Guard, ...] = ()
    # Of kinds that are not served.
    unknown: tuple[meta_pb2.OwnerReference, ...] = ()


def reconcile(view: View, key: Key, _now: float) -> Result:
    """What is to be done for one object of any kind."""
    name = Name(*key)
    found = view.object(name)
    if found is None:
        return NOTHING
    meta: meta_pb2.ObjectMeta = found.metadata
    if meta.HasField("deletion_timestamp"):
        if ORPHAN in meta.finalizers:
            return Result(tuple(_orphan_children(view, name, meta)))
        if FOREGROUND in meta.finalizers and not _blocking(view, meta.uid):
            return Result((_finalized(name, meta, FOREGROUND),))
    if not meta.owner_references:
        return NOTHING
    return Result(tuple(_judge(view, name, meta)))


def _judge(view: View, name: Name, meta: meta_pb2.ObjectMeta) -> Iterable[pb.Transaction]:
    owners = _owners(view, name, meta)
    circle = bool(owners.waiting) and _goes_in_a_circle(view, meta.uid)
    if meta.HasField("deletion_timestamp"):
        if circle:
            yield from _unblocked(name, meta)
        return
    if owners.solid or owners.unknown:
        forgotten = {each.uid for each in owners.gone}
        if owners.solid:
            # Who waits for its children need not wait for one that somebody else keeps.
            forgotten |= {each.uid for each in owners.waiting}
        if forgotten:
            kept = [each for each in meta.owner_references if each.uid not in forgotten]
            yield _owned_by(name, meta, kept, owners.proofs)
        return
    if circle and any(each.block_owner_deletion for each in meta.owner_references):
        yield from _unblocked(name, meta)
        return
    if ORPHAN in meta.finalizers:
        propagation = transaction.ORPHAN
    elif FOREGROUND in meta.finalizers or (owners.waiting and view.owned(meta.uid)):
        propagation = transaction.FOREGROUND
    else:
        propagation = transaction.BACKGROUND
    yield transaction.remove(
        name.ref(), meta, propagation=propagation, unchanged=True, guards=owners.proofs
    )


def _owners(view: View, name: Name, meta: meta_pb2.ObjectMeta) -> _Owners:
    solid: list[meta_pb2.OwnerReference] = []
    waiting: list[meta_pb2.OwnerReference] = []
    gone: list[meta_pb2.OwnerReference] = []
    unknown: list[meta_pb2.OwnerReference] = []
    proofs: list[pb.Guard] = []
    for each in meta.owner_references:
        holder = view.holder(each.uid)
        # An owner in another namespace is none: it could not be told from a namesake.
        if holder is not None and holder.namespace in ("", name.namespace):
            owner = view.object(holder).metadata
            waits = owner.HasField("deletion_timestamp") and FOREGROUND in owner.finalizers
            (waiting if waits else solid).append(each)
            continue
        kind = view.called(each.api_version, each.kind)
        if kind is None or (kind.namespaced and not name.namespace):
            # Nobody can say whether it is there; nor can what lives in no namespace be owned from
            # within one.
            unknown.append(each)
            continue
        place = Name(kind.full_name, name.namespace if kind.namespaced else "", each.name)
        namesake = view.object(place)
        gone.append(each)
        proofs.append(
            transaction.absent(place.ref())
            if namesake is None
            else pb.Guard(ref=place.ref(), uid=namesake.metadata.uid)
        )
    return _Owners(tuple(solid), tuple(waiting), tuple(gone), tuple(proofs), tuple(unknown))


def _blocking(view: View, uid: str) -> Sequence[Name]:
    """Children that hold their owner until they are gone."""
    return [
        child
        for child in view.owned(uid)
        if any(
            each.uid == uid and each.block_owner_deletion
            for each in view.object(child).metadata.owner_references
        )
    ]


def _goes_in_a_circle(view: View, uid: str) -> bool:
    """Whether a child of it is itself waiting for children."""
    for child in view.owned(uid):
        meta = view.object(child).metadata
        if meta.HasField("deletion_timestamp") and FOREGROUND in meta.finalizers:
            return True
    return False


def _unblocked(name: Name, meta: meta_pb2.ObjectMeta) -> Iterable[pb.Transaction]:
    """Its owners need not wait for it."""
    if not any(each.block_owner_deletion for each in meta.owner_references):
        return
    owners = []
    for each in meta.owner_references:
        loose = meta_pb2.OwnerReference()
        loose.CopyFrom(each)
        loose.block_owner_deletion = False
        owners.append(loose)
    yield _owned_by(name, meta, owners)


def _orphan_children(view: View, name: Name, meta: meta_pb2.ObjectMeta) -> Iterable[pb.Transaction]:
    """First every child forgets it, then it may go."""
    children = view.owned(meta.uid)
    for child in children:
        theirs = view.object(child).metadata
        kept = [each for each in theirs.owner_references if each.uid != meta.uid]
        yield _owned_by(child, theirs, kept)
    if not children:
        yield _finalized(name, meta, ORPHAN)


def _owned_by(
    name: Name,
    meta: meta_pb2.ObjectMeta,
    owners: Iterable[meta_pb2.OwnerReference],
    guards: Iterable[pb.Guard] = (),
) -> pb.Transaction:
    wanted = meta_pb2.ObjectMeta(owner_references=owners)
    return transaction.metadata(name.ref(), meta, wanted, ["ownerReferences"], guards=guards)


def _finalized(name: Name, meta: meta_pb2.ObjectMeta, finalizer: str) -> pb.Transaction:
    wanted = meta_pb2.ObjectMeta(finalizers=[each for each in meta.finalizers if each != finalizer])
    return transaction.metadata(name.ref(), meta, wanted, ["finalizers"])


def _concerned(view: View, old: Any, new: Any) -> Iterable[Key]:
    """Keys: itself if it has owners or waits; its owners; its children when it goes."""
    meta: meta_pb2.ObjectMeta = (new or old).metadata
    going = new is None or new.metadata.HasField("deletion_timestamp")
    if new is not None and (new.metadata.owner_references or going):
        holder = view.holder(meta.uid)
        if holder is not None:
            yield holder
    for obj in (old, new):
        for each in () if obj is None else obj.metadata.owner_references:
            owner = view.holder(each.uid)
            if owner is not None and view.object(owner).metadata.HasField("deletion_timestamp"):
                yield owner
    if going:
        yield from view.owned(meta.uid)


CONTROLLER = Controller(
    name="garbage-collector",
    reads={EVERY_KIND: _concerned},
    writes=(EVERY_KIND,),
    reconcile=reconcile,
)
