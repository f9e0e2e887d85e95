"""Namespaces: what each one has, and how one goes.

A live namespace has the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`; both come
back when they are deleted. One that is being deleted is Terminating: all that is in it is deleted,
of whatever kind; what waits (finalizers, a pod's grace) is waited for and said in its conditions.
With the last of it the server lets the namespace go, as every parent of children.
Emptying works on metadata alone. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, namespace_pb2, service_account_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.reconcile import transaction
from kcore.reconcile.controller import EVERY_KIND, NOTHING, Controller, Key, Result
from kcore.reconcile.view import Name, View

Namespace = namespace_pb2.Namespace
ConfigMap = config_map_pb2.ConfigMap
ServiceAccount = service_account_pb2.ServiceAccount

# Those that every cluster has.
FIRST = ("default", "kube-system", "kube-public", "kube-node-lease")
DEFAULT_ACCOUNT = "default"
ROOT_CERTIFICATE = "kube-root-ca.crt"
_CERTIFICATE_KEY = "ca.crt"
_DESCRIPTION = "kubernetes.io/description"
_DESCRIPTION_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. "
    "No other usage is guaranteed across distributions of Kubernetes clusters."
)
_MOST_AT_ONCE = 500


def first() -> list[pb.Transaction]:
    """Makes the namespaces that every cluster has; each fails harmlessly if it is there."""
    return [
        transaction.create(Namespace(metadata=meta_pb2.ObjectMeta(name=name))) for name in FIRST
    ]


def _reconcile(view: View, key: Key, now: float, root_certificate: str) -> Result:
    (name,) = key
    live = view.get(Namespace, "", name)
    if live is None:
        return NOTHING
    if live.metadata.HasField("deletion_timestamp"):
        return _end(view, live, now)
    return _equip(view, live, root_certificate)


def _equip(view: View, live: Namespace, root_certificate: str) -> Result:
    name = live.metadata.name
    wanted: list[pb.Transaction] = []
    if view.get(ServiceAccount, name, DEFAULT_ACCOUNT) is None:
        account = ServiceAccount(metadata=meta_pb2.ObjectMeta(namespace=name, name=DEFAULT_ACCOUNT))
        wanted.append(transaction.create(account))
    fresh = ConfigMap(
        metadata=meta_pb2.ObjectMeta(
            namespace=name,
            name=ROOT_CERTIFICATE,
            annotations={_DESCRIPTION: _DESCRIPTION_TEXT},
        ),
        data={_CERTIFICATE_KEY: root_certificate},
    )
    known = view.get(ConfigMap, name, ROOT_CERTIFICATE)
    if known is None:
        wanted.append(transaction.create(fresh))
    elif dict(known.data) != dict(fresh.data):
        wanted.append(transaction.patch(known, fresh, ["data"]))
    return Result(tuple(wanted))


def _end(view: View, live: Namespace, now: float) -> Result:
    left = view.within(live.metadata.name)
    wanted: list[pb.Transaction] = []
    status = namespace_pb2.NamespaceStatus(phase="Terminating")
    status.conditions.extend(_conditions(view, live, left, now))
    if status != live.status:
        # First, since the last deletion may take the namespace along.
        wanted.append(transaction.status(live, status))
    for name in left:
        meta = view.object(name).metadata
        if not meta.HasField("deletion_timestamp") and len(wanted) < _MOST_AT_ONCE:
            wanted.append(transaction.remove(name.ref(), meta))
    return Result(tuple(wanted))


def _conditions(
    view: View, live: Namespace, left: Sequence[Name], now: float
) -> Iterable[namespace_pb2.NamespaceCondition]:
    """What is still there, and who holds it."""
    kinds = Counter(name.kind.rpartition(".")[2] for name in left)
    holders = Counter(
        finalizer for name in left for finalizer in view.object(name).metadata.finalizers
    )
    yield _condition(
        live,
        "NamespaceContentRemaining",
        bool(left),
        ("SomeResourcesRemain", "ContentRemoved"),
        "Some resources are remaining: " + _counted(kinds) if left else "All content removed",
        now,
    )
    yield _condition(
        live,
        "NamespaceFinalizersRemaining",
        bool(holders),
        ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
        "Some content in the namespace has finalizers remaining: " + _counted(holders)
        if holders
        else "All content-preserving finalizers finished",
        now,
    )


def _counted(words: Counter[str]) -> str:
    return ", ".join(f"{word} in {count} objects" for word, count in sorted(words.items()))


def _condition(
    live: Namespace, type_: str, holds: bool, reasons: tuple[str, str], message: str, now: float
) -> namespace_pb2.NamespaceCondition:
    status = "True" if holds else "False"
    moment = meta_pb2.Time(seconds=int(now))
    for known in live.status.conditions:
        if known.type == type_ and known.status == status:
            moment = known.last_transition_time
    return namespace_pb2.NamespaceCondition(
        type=type_,
        status=status,
        last_transition_time=moment,
        reason=reasons[0] if holds else reasons[1],
        message=message,
    )


def _itself(_view: View, old: Namespace | None, new: Namespace | None) -> Iterable[Key]:
    found = new or old
    assert found is not None
    yield (found.metadata.name,)


def _its_namespace(_view: View, old: Any, new: Any) -> Iterable[Key]:
    """Keys: the namespace of what every one has."""
    yield ((new or old).metadata.namespace,)


def _namespace_that_ends(view: View, old: Any, new: Any) -> Iterable[Key]:
    """Keys: the namespace of whatever changed, if it is being emptied."""
    name = (new or old).metadata.namespace
    live = view.get(Namespace, "", name) if name else None
    if live is not None and live.metadata.HasField("deletion_timestamp"):
        yield (name,)


def controller(root_certificate: str) -> Controller:
    """The controller; `root_certificate` is the PEM text that programs trust the apiserver by."""
    return Controller(
        name="namespace-controller",
        reads={
            Namespace: _itself,
            ServiceAccount: _its_namespace,
            ConfigMap: _its_namespace,
            EVERY_KIND: _namespace_that_ends,
        },
        writes=(EVERY_KIND,),
        reconcile=lambda view, key, now: _reconcile(view, key, now, root_certificate),
    )
