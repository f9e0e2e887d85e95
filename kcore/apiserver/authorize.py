"""What a user may do: one function, asked for each operation after it was decoded, by every face.

`decide(user, verb, kind, namespace, name, subresource)` denies unless a rule allows. Verbs are
Kubernetes': get, list, watch, create, update, patch, delete; what is not a kind's has names of its
own here (`CAUSE`, `IMPERSONATE`). A namespace or a name of "" means all of them, so a rule that is
about one name does not cover it. `decide` alone knows the table below, which is the components'
and the group system:masters': it holds whatever objects say, so nobody locks himself out. An
`Authorizer` asks the roles that are objects as well.

The table is pure; it knows the kinds that components need, and no object. Where a permission hangs
on an object's content (a kubelet writes the pods of its own node, and reads what they refer to),
the decision says so in `bound_to`, and whoever has the object must look.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from kcore.apiserver import policy
from kcore.apiserver.identity import MASTERS, User
from kcore.kernel.record import Stored
from kcore.kernel.schema import Schema

NODE = "kcore.core.v1.Node"
POD = "kcore.core.v1.Pod"
_EVENT = "kcore.core.v1.Event"
_LEASE = "kcore.coordination.v1.Lease"
_POOL = "kcore.core.v1.Pool"
_NAMESPACE = "kcore.core.v1.Namespace"
SERVICE_ACCOUNT = "kcore.core.v1.ServiceAccount"
CONFIG_MAP = "kcore.core.v1.ConfigMap"
SECRET = "kcore.core.v1.Secret"
_REFERRED_TO = (CONFIG_MAP, SECRET)
_NETWORK = ("kcore.core.v1.Service", "kcore.discovery.v1.EndpointSlice")

ANY = "*"
# Not kinds: to say which revision made one act, and to act as somebody else.
CAUSE = "cause"
IMPERSONATE = "impersonate"
USERS, GROUPS = "users", "groups"
# What a kubelet's link is asked permission for, of its Node.
LINK = "link"
# Of a service account: to have a token of it.
TOKEN = "token"

READ = frozenset(("get", "list", "watch"))
WRITE = frozenset(("create", "update", "patch", "delete"))
_CHANGE = frozenset(("update", "patch"))
_EVENTS = frozenset(("create", "update", "patch", "get"))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, and why. `bound_to`: allowed for objects of that node only."""

    allowed: bool
    reason: str
    bound_to: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    verbs: frozenset[str]
    kinds: tuple[str, ...]
    subresources: tuple[str, ...] = ("",)
    # Empty: any.
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    # Single objects, by name, only.
    named: bool = False
    # Objects of the user's node only.
    bound: bool = False

    def about(self, verb: str, kind: str, subresource: str) -> bool:
        return (
            (verb in self.verbs or ANY in self.verbs)
            and (kind in self.kinds or ANY in self.kinds)
            and (subresource in self.subresources or ANY in self.subresources)
        )

    def covers(self, namespace: str, name: str) -> bool:
        return (
            (not self.namespaces or namespace in self.namespaces)
            and (not self.names or name in self.names)
            and (not self.named or bool(name))
        )


_CAUSES = _Rule(frozenset((CAUSE,)), (ANY,))

_BY_USER: dict[str, tuple[_Rule, ...]] = {
    # Its controllers act on whatever objects own and namespaces hold; none of them looks into
    # containers or speaks for a node.
    "system:kube-controller-manager": (
        _CAUSES,
        _Rule(READ, (ANY,)),
        _Rule(WRITE, (ANY,), ("", "status", "scale", "eviction")),
    ),
    "system:kube-scheduler": (
        _CAUSES,
        _Rule(READ, (POD, NODE, _NAMESPACE, _LEASE)),
        _Rule(frozenset(("create", *_CHANGE)), (POD,), ("binding",)),
        _Rule(_CHANGE, (POD,), ("status",)),
        _Rule(frozenset(("delete",)), (POD,)),
        _Rule(_EVENTS, (_EVENT,)),
        _Rule(WRITE, (_LEASE,), namespaces=("kube-system",), names=("kube-scheduler",)),
    ),
    # On every node the same: it reads services, and writes nothing but words about them.
    "system:kube-proxy": (
        _CAUSES,
        _Rule(READ, (NODE, _POOL, *_NETWORK)),
        _Rule(_EVENTS, (_EVENT,)),
    ),
    "system:kube-dns": (_Rule(READ, (_POOL, *_NETWORK)),),
}

_BY_GROUP: dict[str, tuple[_Rule, ...]] = {
    MASTERS: (_Rule(frozenset((ANY,)), (ANY,), (ANY,)),),
}


@functools.lru_cache(maxsize=256)
def _of_node(node: str) -> tuple[_Rule, ...]:
    return (
        _CAUSES,
        _Rule(READ, (NODE, POD, _NAMESPACE, _POOL, *_NETWORK)),
        _Rule(frozenset(("create", *_CHANGE)), (NODE,), ("", "status"), names=(node,)),
        _Rule(frozenset(("create",)), (NODE,), (LINK,), names=(node,)),
        _Rule(frozenset(("create", "delete")), (POD,), bound=True),
        _Rule(_CHANGE, (POD,), ("status",), bound=True),
        _Rule(READ, _REFERRED_TO, named=True, bound=True),
        _Rule(frozenset(("get",)), (SERVICE_ACCOUNT,), named=True),
        # Of the accounts of its pods, bound to them.
        _Rule(frozenset(("create",)), (SERVICE_ACCOUNT,), (TOKEN,), named=True, bound=True),
        _Rule(_EVENTS, (_EVENT,)),
        _Rule(READ | WRITE, (_LEASE,), namespaces=("kube-node-lease",), names=(node,)),
    )


def decide(
    user: User, verb: str, kind: str, namespace: str = "", name: str = "", subresource: str = ""
) -> Decision:
    """Whether the user may. `kind` is the full name of a message, or a word of this module's."""
    found: Decision | None = None
    for rule, decision in _about(user, verb, kind, subresource):
        if rule.covers(namespace, name):
            if not rule.bound:
                return decision
            found = decision
    return found or _DENIED


@functools.lru_cache(maxsize=2048)
def _about(
    user: User, verb: str, kind: str, subresource: str
) -> tuple[tuple[_Rule, Decision], ...]:
    """The user's rules about doing this to any such object, and what each decides.

    Of names there are as many as of objects: they are not remembered.
    """
    node = user.node
    return tuple(
        (
            rule,
            Decision(True, f"built-in rules of node {node}", node)
            if rule.bound
            else Decision(True, f"built-in rules of {who}"),
        )
        for who, rules in _applying(user, node)
        for rule in rules
        if rule.about(verb, kind, subresource)
    )


_DENIED = Decision(False, "no rule allows it")
_ENDED = Decision(False, "the credentials are no longer good")
# So many are remembered.
_DECISIONS = 16_384


def built_in(user: User, schema: Schema) -> Iterable[policy.Rule]:
    """What the table says of the user, as roles say it; without what hangs on objects' content."""
    for _, rules in _applying(user, user.node):
        for rule in rules:
            if rule.bound or rule.verbs == {CAUSE}:
                continue
            by_group: dict[str, list[str]] = {}
            for name in rule.kinds:
                kind = schema.kinds.get(name)
                group, plural = (kind.group, kind.plural) if kind is not None else (ANY, ANY)
                by_group.setdefault(group, []).append(plural)
            for group, plurals in by_group.items():
                resources = {
                    f"{plural}/{one}" if one and one != ANY else plural
                    for plural in plurals
                    for one in rule.subresources
                }
                yield policy.Rule(
                    rule.verbs, frozenset((group,)), frozenset(resources), frozenset(rule.names)
                )


class Objects(Protocol):
    """What is asked of the kernel: objects as they are now."""

    @property
    def schema(self) -> Schema:
        """The kinds."""
        ...

    def shown_all(self, kind: str, path: str = "", value: str = "") -> Iterable[Stored]:
        """The objects of a kind, or those with this value of a selectable path."""
        ...

    def changed(self, kind: str) -> int:
        """The last revision that changed an object of the kind."""
        ...


def policy_of(objects: Objects) -> policy.Policy:
    """What the roles and bindings say, now."""
    return policy.compile_policy(lambda kind: (stored.body for stored in objects.shown_all(kind)))


class Authorizer:
    """Decides by the table, then by the objects. What was decided holds until one of them changes.

    Which objects a decision was made by is told by the last changes of their kinds: there is no
    feed to be behind, and a revoked permission is gone for the very next operation.
    """

    def __init__(self, objects: Objects, lasts: Callable[[User], bool] = lambda _: True) -> None:
        """`lasts`: whether somebody's credentials are good still."""
        self._objects = objects
        self._lasts = lasts
        self._stamp: tuple[int, ...] = ()
        self._policy = policy.Policy({}, {})
        self._decided: dict[tuple[User, str, str, str, str, str], Decision] = {}

    def __call__(
        self,
        user: User,
        verb: str,
        kind: str,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> Decision:
        """Whether the user may, as `decide`."""
        if user.claim is not None and not self._lasts(user):
            return _ENDED
        self._refresh()
        asked = user, verb, kind, namespace, name, subresource
        found = self._decided.get(asked)
        if found is None:
            if len(self._decided) >= _DECISIONS:
                self._decided.clear()
            found = self._decided[asked] = self._decide(*asked)
        return found

    def _refresh(self) -> None:
        changed = self._objects.changed
        stamp = (self._objects.schema.revision, *[changed(kind) for kind in policy.KINDS])
        if stamp != self._stamp:
            self._policy = policy_of(self._objects)
            self._decided.clear()
            self._stamp = stamp

    def _decide(
        self, user: User, verb: str, kind: str, namespace: str, name: str, subresource: str
    ) -> Decision:
        decision = decide(user, verb, kind, namespace, name, subresource)
        if decision.allowed and not decision.bound_to:
            return decision
        known = self._objects.schema.kinds.get(kind)
        group, plural = (known.group, known.plural) if known is not None else ("", kind)
        if known is not None and not known.namespaced:
            # A role within a namespace is not about what is outside of all.
            namespace = ""
        reason = self._policy.reason(user, verb, group, plural, subresource, namespace, name)
        return Decision(True, reason) if reason else decision


def _applying(user: User, node: str) -> Iterable[tuple[str, tuple[_Rule, ...]]]:
    for group in user.groups:
        if group in _BY_GROUP:
            yield f"group {group}", _BY_GROUP[group]
    if user.name in _BY_USER:
        yield f"user {user.name}", _BY_USER[user.name]
    if node:
        yield f"node {node}", _of_node(node)


def denial(
    user: User,
    verb: str,
    resource: str,
    group: str,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
) -> str:
    """What a user is told who may not; `resource` is the kind's plural."""
    subject = f"{resource}.{group}" if group else resource
    if name:
        subject += f' "{name}"'
    whole = f"{resource}/{subresource}" if subresource else resource
    if namespace:
        where = f'in the namespace "{namespace}"'
    else:
        where = "at the cluster scope"
    return (
        f'{subject} is forbidden: User "{user.name}" cannot {verb} resource "{whole}"'
        f' in API group "{group}" {where}'
    )
