"""Adoption: whose children they are is a matter of labels.

An owner takes the objects that its selector matches and that nobody manages, and lets go of those
of its own whose labels do not match any more. One that is being deleted takes none.
Pure; the same for every kind of owner and child.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.reconcile import controller, owner, transaction
from kcore.reconcile.controller import Key, Keys
from kcore.reconcile.view import View
from kcore.wire import selector
from kcore.wire.errors import ApiError
from kcore.wire.selector import LabelSelector

C = TypeVar("C", bound=Message)


@dataclass(frozen=True, slots=True)
class Claimed(Generic[C]):
    """The owner's children now, and what makes it so."""

    children: tuple[C, ...]
    transactions: tuple[pb.Transaction, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """Of a possible child: who manages it, and its labels."""

    manager: str
    labels: Mapping[str, str]
    deleting: bool


def _facts(obj: Message) -> _Facts:
    meta = owner.metadata(obj)
    manager = owner.manager(meta)
    return _Facts(
        "" if manager is None else manager.uid,
        dict(meta.labels),
        meta.HasField("deletion_timestamp"),
    )


def selects(message: meta_pb2.LabelSelector) -> LabelSelector | None:
    """The selector; None if it can't be understood or selects everything, which no owner may."""
    try:
        found = selector.from_message(message)
    except ApiError:
        return None
    return None if found.everything else found


def orphan(obj: Message) -> Iterable[str]:
    """Index: objects that nobody manages, by namespace."""
    meta = owner.metadata(obj)
    if owner.manager(meta) is None:
        yield meta.namespace


def claim(
    view: View,
    parent: Message,
    matching: LabelSelector,
    kind: type[C],
    fits: Callable[[C], bool] = lambda _: True,
) -> Claimed[C]:
    """Adopts objects of `kind` that nobody manages (index "orphan"), releases owned ones.

    It takes only those that `fits` allows.
    """
    meta = owner.metadata(parent)
    deleting = meta.HasField("deletion_timestamp")
    children: list[C] = []
    wanted: list[pb.Transaction] = []
    for child in view.list(kind, meta.namespace, owner=meta.uid):
        facts = view.fact(_facts, child)
        if facts.manager != meta.uid:
            continue
        if matching.matches(facts.labels):
            children.append(child)
        elif not deleting:
            others = owner.metadata(child).owner_references
            wanted.append(_owners(child, [each for each in others if each.uid != meta.uid]))
    for child in () if deleting else view.list(kind, index=("orphan", meta.namespace)):
        facts = view.fact(_facts, child)
        if not facts.deleting and matching.matches(facts.labels) and fits(child):
            others = owner.metadata(child).owner_references
            owners = [each for each in others if each.uid != meta.uid]
            alive = transaction.same(transaction.ref(parent), meta)
            wanted.append(_owners(child, [*owners, owner.reference(parent)], alive))
    return Claimed(tuple(children), tuple(wanted))


def _owners(
    child: Message, owners: Iterable[meta_pb2.OwnerReference], guards: Iterable[pb.Guard] = ()
) -> pb.Transaction:
    fresh = type(child)()
    owner.metadata(fresh).owner_references.extend(owners)
    return transaction.patch(
        child, fresh, ["metadata.ownerReferences"], unchanged=True, guards=guards
    )


def concerned(parent: type[Message]) -> Keys:
    """Keys: who of `parent`'s kind manages the object that changed, did so, or would adopt it."""
    its_manager = controller.its_manager(parent)

    def keys(view: View, old: Message | None, new: Message | None) -> Iterable[Key]:
        yield from its_manager(view, old, new)
        if new is None or owner.manager(owner.metadata(new)) is not None:
            return
        meta = owner.metadata(new)
        for candidate in view.list(parent, meta.namespace):
            if _matches(candidate, meta.labels):
                yield (meta.namespace, owner.metadata(candidate).name)

    return keys


def _matches(candidate: Message, labels: Mapping[str, str]) -> bool:
    matching = selects(candidate.spec.selector)  # type: ignore[attr-defined]
    return matching is not None and matching.matches(labels)
