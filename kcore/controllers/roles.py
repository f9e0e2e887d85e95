"""The roles that every cluster has: cluster-admin, admin, edit and view, as in Kubernetes.

`first()` makes them and the one binding among them. They are objects like all others, made once:
whoever changes or deletes one has decided so. admin has what edit has, and edit what view has, by
labels that anybody's ClusterRole may carry: rbac.authorization.k8s.io/aggregate-to-view: "true".

Components have permissions of their own, which are no objects. Pure.
"""

from collections.abc import Mapping, Sequence

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2
from kcore_api.kcore.rbac.v1 import role_binding_pb2, role_pb2

from kcore.reconcile import transaction

ClusterRole = role_pb2.ClusterRole
ClusterRoleBinding = role_binding_pb2.ClusterRoleBinding
PolicyRule = role_pb2.PolicyRule

MASTERS = "system:masters"
_GROUP = "rbac.authorization.k8s.io"
_DEFAULTS = {"kubernetes.io/bootstrapping": "rbac-defaults"}

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_IMPERSONATE = ("impersonate",)
_ALL = ("*",)

_WORKLOADS = {
    "apps": (
        "daemonsets",
        "deployments",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ),
    "batch": ("cronjobs", "jobs"),
    "policy": ("poddisruptionbudgets",),
}
_STATUS = {
    "": (
        "events",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims/status",
        "pods/log",
        "pods/status",
        "services/status",
    ),
    "apps": (
        "controllerrevisions",
        "daemonsets/status",
        "deployments/status",
        "replicasets/status",
        "statefulsets/status",
    ),
    "batch": ("cronjobs/status", "jobs/status"),
    "discovery.k8s.io": ("endpointslices",),
    "policy": ("poddisruptionbudgets/status",),
}
_PLAIN = {"": ("configmaps", "persistentvolumeclaims", "pods", "serviceaccounts", "services")}
_VIEW = (*((_READ, one) for one in (_PLAIN, _WORKLOADS, _STATUS)),)
_EDIT = (
    # Who may run a command in a pod can read what it can.
    (_READ, {"": ("pods/attach", "pods/exec", "pods/portforward", "secrets")}),
    (_IMPERSONATE, {"": ("serviceaccounts",)}),
    (_WRITE, _PLAIN),
    (_WRITE, {"": ("events", "pods/attach", "pods/exec", "pods/portforward", "secrets")}),
    (("create",), {"": ("pods/eviction", "serviceaccounts/token")}),
    (("patch", "update"), {"": ("pods/ephemeralcontainers",)}),
    (_WRITE, _WORKLOADS),
    ((*_READ, *_WRITE), {"coordination.k8s.io": ("leases",)}),
)
_ADMIN = (((*_READ, *_WRITE), {_GROUP: ("rolebindings", "roles")}),)


def first() -> Sequence[pb.Transaction]:
    """Makes them; each fails harmlessly if it is there."""
    everything = PolicyRule(verbs=_ALL, api_groups=_ALL, resources=_ALL)
    binding = ClusterRoleBinding(metadata=_meta("cluster-admin"))
    binding.role_ref.api_group = _GROUP
    binding.role_ref.kind, binding.role_ref.name = "ClusterRole", "cluster-admin"
    binding.subjects.add(api_group=_GROUP, kind="Group", name=MASTERS)
    return [
        transaction.create(made)
        for made in (
            ClusterRole(metadata=_meta("cluster-admin"), rules=[everything]),
            _collection("admin", ()),
            _collection("edit", ("admin",)),
            _collection("view", ("edit",)),
            _part("admin", _ADMIN),
            _part("edit", _EDIT),
            _part("view", _VIEW),
            binding,
        )
    ]


def _collection(name: str, into: Sequence[str]) -> role_pb2.ClusterRole:
    """What all roles say together that are labelled so."""
    made = ClusterRole(metadata=_meta(name, into))
    selected = made.aggregation_rule.cluster_role_selectors.add()
    selected.match_labels[_label(name)] = "true"
    return made


def _part(
    name: str, rules: Sequence[tuple[Sequence[str], Mapping[str, Sequence[str]]]]
) -> role_pb2.ClusterRole:
    """What is of a collection from the beginning."""
    made = ClusterRole(metadata=_meta(f"system:aggregate-to-{name}", (name,)))
    for verbs, resources in rules:
        for group, plurals in resources.items():
            made.rules.add(verbs=verbs, api_groups=[group], resources=plurals)
    return made


def _meta(name: str, into: Sequence[str] = ()) -> meta_pb2.ObjectMeta:
    return meta_pb2.ObjectMeta(
        name=name, labels={**_DEFAULTS, **{_label(one): "true" for one in into}}
    )


def _label(name: str) -> str:
    return f"{_GROUP}/aggregate-to-{name}"
