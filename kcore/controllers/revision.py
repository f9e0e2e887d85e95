"""Revisions: the templates that an owner of pods has, or once had.

A StatefulSet and a DaemonSet keep a ControllerRevision for each template. `look` tells which one is
the present template's, or the transactions that make it so: a new template gets a new revision, an
old one its old revision back under the next number. `cleared` deletes those that nobody needs.
What a revision holds is a merge patch for its owner, {"spec": {"template": …}}, as Kubernetes
writes it. Pure; the same for every kind of owner.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import controller_revision_pb2
from kcore_api.kcore.core.v1 import pod_spec_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.client import codec
from kcore.controllers import adoption
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import Result
from kcore.reconcile.view import View
from kcore.wire.errors import ApiError
from kcore.wire.selector import LabelSelector

ControllerRevision = controller_revision_pb2.ControllerRevision

# On pods: of which revision they are.
HASH = "controller-revision-hash"
_LETTERS = 10
_NAME_LENGTH = 253 - _LETTERS - 1
_DEFAULT_HISTORY = 10


@dataclass(frozen=True, slots=True)
class Look:
    """All revisions, oldest first, and the present template's; None: it is still to be made."""

    known: tuple[ControllerRevision, ...]
    present: ControllerRevision | None
    # What makes it so; where there is any, nothing else is to be decided yet.
    transactions: tuple[pb.Transaction, ...] = ()
    collisions: int = 0

    def called(self, given: str) -> ControllerRevision | None:
        """The revision of this name."""
        return next((each for each in self.known if each.metadata.name == given), None)


def look(
    view: View,
    live: Message,
    matching: LabelSelector,
    template: pod_spec_pb2.PodTemplateSpec,
    collisions: int,
) -> Look:
    """The revisions of an owner whose present template this is."""
    claimed = adoption.claim(view, live, matching, ControllerRevision)
    known = tuple(sorted(claimed.children, key=_age))
    if claimed.transactions:
        return Look(known, None, claimed.transactions, collisions)
    data = _data(template)
    newest = known[-1].revision if known else 0
    same = [each for each in known if view.fact(_content, each) == data]
    if same:
        present = same[-1]
        if present is known[-1]:
            return Look(known, present, collisions=collisions)
        fresh = ControllerRevision(revision=newest + 1)
        again = transaction.patch(present, fresh, ["revision"], unchanged=True)
        return Look(known, present, (again,), collisions)
    meta = owner.metadata(live)
    letters = name.letters(data, collisions, length=_LETTERS)
    named = f"{meta.name[:_NAME_LENGTH]}-{letters}"
    if view.get(ControllerRevision, meta.namespace, named) is not None:
        # Somebody else's has the name, or the letters met: take others.
        return Look(known, None, (), collisions + 1)
    fresh = ControllerRevision(revision=newest + 1)
    fresh.metadata.name, fresh.metadata.namespace = named, meta.namespace
    fresh.metadata.labels.update(template.metadata.labels)
    fresh.metadata.labels["controller.kubernetes.io/hash"] = letters
    fresh.metadata.owner_references.append(owner.reference(live))
    fresh.data.raw = data
    alive = transaction.same(transaction.ref(live), meta)
    return Look(known, None, (transaction.create(fresh, guards=alive),), collisions)


def awaited(live: Any, look: Look) -> Result:
    """Until the present template has its revision, nothing else is decided."""
    wanted = list(look.transactions)
    if look.collisions != live.status.collision_count:
        status = type(live.status)()
        status.CopyFrom(live.status)
        status.collision_count = look.collisions
        wanted.append(transaction.status(live, status))
    return Result(tuple(wanted))


def letters(revision: ControllerRevision) -> str:
    """What tells it from its owner's others."""
    return revision.metadata.name.rpartition("-")[2]


def template(revision: ControllerRevision) -> pod_spec_pb2.PodTemplateSpec | None:
    """The template that it holds; None where somebody has written something else there."""
    try:
        patch = json.loads(revision.data.raw or b"{}")
        plain = dict(patch["spec"]["template"])
        plain.pop("$patch", None)
        kind: Any = pod_spec_pb2.PodTemplateSpec
        found = codec.from_plain(kind.DESCRIPTOR, plain)
    except (ValueError, KeyError, TypeError, ApiError):
        return None
    return pod_spec_pb2.PodTemplateSpec.FromString(found.SerializeToString())


def cleared(
    known: Sequence[ControllerRevision], needed: Collection[str], limit: int | None
) -> list[pb.Transaction]:
    """Deletes the oldest of those that are not needed, beyond as many as are kept to go back to."""
    spare = [each for each in known if each.metadata.name not in needed]
    surplus = len(spare) - (_DEFAULT_HISTORY if limit is None else limit)
    return [transaction.delete(each, unchanged=True) for each in spare[: max(0, surplus)]]


def _data(template: pod_spec_pb2.PodTemplateSpec) -> bytes:
    plain = codec.to_plain(template)
    return _encoded({"spec": {"template": {"$patch": "replace", **plain}}})


def _content(revision: ControllerRevision) -> bytes:
    """What it holds, in the one way that `_data` writes it, whoever wrote it how."""
    try:
        return _encoded(json.loads(revision.data.raw or b"{}"))
    except (ValueError, RecursionError):
        return b""


def _encoded(patch: Any) -> bytes:
    return json.dumps(patch, separators=(",", ":"), sort_keys=True).encode()


def _age(each: ControllerRevision) -> tuple[int, int, str]:
    created: meta_pb2.Time = each.metadata.creation_timestamp
    return (each.revision, created.seconds, each.metadata.name)
