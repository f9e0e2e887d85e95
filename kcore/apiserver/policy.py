"""The policy: what Roles, ClusterRoles and their bindings say, compiled.

    policy = compile_policy(read)       # read(kind) gives the bodies of all objects of that kind
    policy.reason(user, "list", "", "pods", "", "shop", "")

`reason` is why somebody may, "" if nothing says so; roles only add. `missing(user, rules,
namespace)` are the rules that somebody would give away without having them. A ClusterRole with an
aggregationRule has, beside its own, the rules of all that it selects, directly or through others:
nothing has to write them together, so none is ever late.

Pure. It must not know kinds but by resource, nor who asks.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kcore_api.kcore.rbac.v1 import role_binding_pb2, role_pb2

from kcore.apiserver.identity import ACCOUNT_PREFIX, User
from kcore.wire import selector

GROUP = "rbac.authorization.k8s.io"
ROLE = "kcore.rbac.v1.Role"
CLUSTER_ROLE = "kcore.rbac.v1.ClusterRole"
ROLE_BINDING = "kcore.rbac.v1.RoleBinding"
CLUSTER_ROLE_BINDING = "kcore.rbac.v1.ClusterRoleBinding"
KINDS = (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)

_ALL = "*"
# A rule with more combinations than these must be held by one rule of its giver.
_MOST_COMBINATIONS = 4096

# The bodies of all objects of a kind.
Read = Callable[[str], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Each of the verbs on each of the resources ("pods", "pods/log")."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    # Empty: all.
    names: frozenset[str]

    def permits(self, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
        """Whether it is about this."""
        return (
            (verb in self.verbs or _ALL in self.verbs)
            and (group in self.groups or _ALL in self.groups)
            and self._has_resource(resource, subresource)
            and (not self.names or name in self.names)
        )

    def covers(self, other: "Rule") -> bool:
        """Whether it permits all that the other does."""
        return (
            (other.verbs <= self.verbs or _ALL in self.verbs)
            and (other.groups <= self.groups or _ALL in self.groups)
            and all(self._has_resource(*_parts(one)) for one in other.resources)
            and (not self.names or (bool(other.names) and other.names <= self.names))
        )

    def apart(self) -> Iterator["Rule"]:
        """Rules of one verb, group, resource and name each that say the same together."""
        for verb, group, resource, name in itertools.product(
            sorted(self.verbs),
            sorted(self.groups),
            sorted(self.resources),
            sorted(self.names) or (None,),
        ):
            names = frozenset((name,)) if name is not None else frozenset()
            yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), names)

    def combinations(self) -> int:
        """How many `apart` has."""
        sizes = len(self.verbs), len(self.groups), len(self.resources), len(self.names) or 1
        return math.prod(sizes)

    def __str__(self) -> str:
        """As Kubernetes writes it."""
        said = [
            ("APIGroups", self.groups),
            ("Resources", self.resources),
            ("ResourceNames", self.names),
            ("Verbs", self.verbs),
        ]
        words = ", ".join(f"{name}:{json.dumps(sorted(all_))}" for name, all_ in said if all_)
        return f"{{{words}}}"

    def _has_resource(self, resource: str, subresource: str) -> bool:
        if _ALL in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return (
            f"{resource}/{subresource}" in self.resources
            or f"{_ALL}/{subresource}" in self.resources
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """What a binding gives: rules, in one namespace or (namespace "") everywhere."""

    namespace: str
    rules: tuple[Rule, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What all roles and bindings say."""

    # By "User" or "Group", and name.
    grants: Mapping[tuple[str, str], tuple[Grant, ...]]
    # By namespace ("": ClusterRoles) and name.
    roles: Mapping[tuple[str, str], tuple[Rule, ...]]

    def reason(
        self,
        user: User,
        verb: str,
        group: str,
        resource: str,
        subresource: str = "",
        namespace: str = "",
        name: str = "",
    ) -> str:
        """Why the user may; "" if nothing says so."""
        for grant in self._of(user):
            if grant.namespace in ("", namespace) and any(
                rule.permits(verb, group, resource, subresource, name) for rule in grant.rules
            ):
                return grant.reason
        return ""

    def rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """What the user may in a namespace; "": in all of them."""
        for grant in self._of(user):
            if grant.namespace in ("", namespace):
                yield from grant.rules

    def missing(self, user: User, rules: Iterable[Rule], namespace: str) -> list[Rule]:
        """Those of the rules that the user does not hold in the namespace."""
        held = list(self.rules(user, namespace))
        return [rule for rule in rules if not _holds(held, rule)]

    def _of(self, user: User) -> Iterator[Grant]:
        yield from self.grants.get(("User", user.name), ())
        for group in user.groups:
            yield from self.grants.get(("Group", group), ())


def rules_of(rules: Iterable[role_pb2.PolicyRule]) -> tuple[Rule, ...]:
    """What a role's rules say; those about paths of HTTP say nothing here."""
    return tuple(
        Rule(
            frozenset(one.verbs),
            frozenset(one.api_groups),
            frozenset(one.resources),
            frozenset(one.resource_names),
        )
        for one in rules
        if one.resources
    )


def compile_policy(read: Read) -> Policy:
    """What all roles and bindings say."""
    roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
    for body in read(ROLE):
        role = role_pb2.Role.FromString(body)
        roles[role.metadata.namespace, role.metadata.name] = rules_of(role.rules)
    shared = [role_pb2.ClusterRole.FromString(body) for body in read(CLUSTER_ROLE)]
    for cluster_role in shared:
        roles["", cluster_role.metadata.name] = _aggregated(cluster_role, shared)
    grants: dict[tuple[str, str], list[Grant]] = {}
    for body in read(CLUSTER_ROLE_BINDING):
        bound = role_binding_pb2.ClusterRoleBinding.FromString(body)
        _bind(grants, roles, bound, "")
    for body in read(ROLE_BINDING):
        bound_within = role_binding_pb2.RoleBinding.FromString(body)
        _bind(grants, roles, bound_within, bound_within.metadata.namespace)
    return Policy({subject: tuple(given) for subject, given in grants.items()}, roles)


def role_of(reference: role_binding_pb2.RoleRef, namespace: str) -> tuple[str, str]:
    """The namespace ("": none) and the name of the role that a binding of the namespace gives."""
    return (namespace if reference.kind == "Role" else ""), reference.name


def _bind(
    grants: dict[tuple[str, str], list[Grant]],
    roles: Mapping[tuple[str, str], tuple[Rule, ...]],
    bound: role_binding_pb2.RoleBinding | role_binding_pb2.ClusterRoleBinding,
    namespace: str,
) -> None:
    rules = roles.get(role_of(bound.role_ref, namespace))
    if not rules:
        return
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    name = f"{namespace}/{bound.metadata.name}" if namespace else bound.metadata.name
    for subject in bound.subjects:
        who = (subject.kind, subject.name)
        if subject.kind == "ServiceAccount":
            who = ("User", f"{ACCOUNT_PREFIX}{subject.namespace}:{subject.name}")
        said = f'"{subject.namespace}/{subject.name}"' if subject.namespace else f'"{subject.name}"'
        reason = (
            f'RBAC: allowed by {kind} "{name}" of {bound.role_ref.kind} "{bound.role_ref.name}"'
            f" to {subject.kind} {said}"
        )
        grants.setdefault(who, []).append(Grant(namespace, rules, reason))


def _aggregated(
    role: role_pb2.ClusterRole, shared: Iterable[role_pb2.ClusterRole]
) -> tuple[Rule, ...]:
    """Its rules and those of all that it selects, through however many others."""
    found: dict[str, role_pb2.ClusterRole] = {}
    left = [role]
    while left:
        one = left.pop()
        if one.metadata.name in found:
            continue
        found[one.metadata.name] = one
        selectors = [
            selector.from_message(each) for each in one.aggregation_rule.cluster_role_selectors
        ]
        left += [
            other
            for other in shared
            if any(each.matches(other.metadata.labels) for each in selectors)
        ]
    # The same rule of several is one.
    return tuple(dict.fromkeys(rule for one in found.values() for rule in rules_of(one.rules)))


def _holds(held: Iterable[Rule], rule: Rule) -> bool:
    if any(one.covers(rule) for one in held):
        return True
    if rule.combinations() > _MOST_COMBINATIONS:
        return False
    return all(any(one.covers(part) for one in held) for part in rule.apart())


def _parts(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource
