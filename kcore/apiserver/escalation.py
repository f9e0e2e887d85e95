"""Nobody gives away what he does not have.

`check(kind, obj, …)` is asked for each role and binding as it would be stored. A role needs all of
its permissions to be its writer's, or the verb "escalate" on it; a binding all of its role's, or
the verb "bind" on that role; an aggregationRule all there are. Raises FORBIDDEN, in Kubernetes'
words. Pure.
"""

from typing import Any

from kcore_api.kcore.rbac.v1 import role_binding_pb2, role_pb2

from kcore.apiserver import policy
from kcore.apiserver.identity import User
from kcore.apiserver.policy import Policy, Rule
from kcore.wire.errors import ApiError, Reason

MESSAGES: dict[str, Any] = {
    policy.ROLE: role_pb2.Role,
    policy.CLUSTER_ROLE: role_pb2.ClusterRole,
    policy.ROLE_BINDING: role_binding_pb2.RoleBinding,
    policy.CLUSTER_ROLE_BINDING: role_binding_pb2.ClusterRoleBinding,
}
_ALL = frozenset("*")
_EVERYTHING = Rule(_ALL, _ALL, _ALL, frozenset())


def check(user: User, current: Policy, kind: str, body: bytes) -> None:
    """Raises unless the user may store this role or binding where `current` holds."""
    stored = MESSAGES[kind].FromString(body)
    namespace = stored.metadata.namespace
    if kind in (policy.ROLE, policy.CLUSTER_ROLE):
        plural = "roles" if kind == policy.ROLE else "clusterroles"
        name = stored.metadata.name
        if current.reason(user, "escalate", policy.GROUP, plural, "", namespace, name):
            return
        wanted = policy.rules_of(stored.rules)
        if kind == policy.CLUSTER_ROLE and stored.HasField("aggregation_rule"):
            # Whatever others will write into it.
            wanted = (_EVERYTHING,)
    else:
        plural = "rolebindings" if kind == policy.ROLE_BINDING else "clusterrolebindings"
        name = stored.metadata.name
        within, role = policy.role_of(stored.role_ref, namespace)
        what = "roles" if within else "clusterroles"
        if current.reason(user, "bind", policy.GROUP, what, "", namespace, role):
            return
        if (within, role) not in current.roles:
            said = f'{what}.{policy.GROUP} "{role}" not found'
            raise ApiError(Reason.NOT_FOUND, said)
        wanted = current.roles[within, role]
    missing = current.missing(user, wanted, namespace)
    if missing:
        groups = ", ".join(f'"{group}"' for group in user.groups)
        raise ApiError(
            Reason.FORBIDDEN,
            f'{plural}.{policy.GROUP} "{name}" is forbidden: user "{user.name}" (groups=[{groups}])'
            " is attempting to grant RBAC permissions not currently held:\n"
            + "\n".join(map(str, missing)),
        )
