"""`kcore create role`, `clusterrole`, their bindings, and `create token`."""

import re
from collections.abc import Sequence
from typing import Any, Final, cast

import click
from kcore_api.kcore.api.v1 import auth_pb2

from kcore.cli import options
from kcore.cli.generator import generator
from kcore.cli.session import Session

_GROUP: Final = "rbac.authorization.k8s.io"
_VERSION: Final = f"{_GROUP}/v1"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def _permissions(function: Any) -> Any:
    for option in (
        click.option("--resource-name", "names", multiple=True, help="Only the object so called."),
        click.option("--resource", "resources", multiple=True, metavar="KIND[/SUBRESOURCE],…"),
        click.option("--verb", "verbs", multiple=True, metavar="VERB,…"),
    ):
        function = option(function)
    return function


def _subjects(function: Any) -> Any:
    for option in (
        click.option("--serviceaccount", "accounts", multiple=True, metavar="NAMESPACE:NAME"),
        click.option("--group", "groups", multiple=True),
        click.option("--user", "users", multiple=True),
    ):
        function = option(function)
    return function


@click.command(name="role")
@click.argument("name")
@_permissions
@generator
async def role(
    session: Session,
    name: str,
    verbs: Sequence[str],
    resources: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """Make a role: permissions within a namespace.

    \b
    kcore create role reader --verb=get,list,watch --resource=pods,pods/log
    """
    rules = await _rules(session, verbs, resources, names)
    return {"apiVersion": _VERSION, "kind": "Role", "metadata": {"name": name}, "rules": rules}


@click.command(name="clusterrole")
@click.argument("name")
@_permissions
@click.option("--aggregation-rule", "labels", multiple=True, metavar="LABEL=VALUE",
              help="Have the rules of the cluster roles with these labels.")  # fmt: skip
@generator
async def clusterrole(
    session: Session,
    name: str,
    verbs: Sequence[str],
    resources: Sequence[str],
    names: Sequence[str],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Make a cluster role: permissions for all namespaces, or about the cluster.

    \b
    kcore create clusterrole node-reader --verb=get,list --resource=nodes
    """
    made = {"apiVersion": _VERSION, "kind": "ClusterRole", "metadata": {"name": name}}
    if not labels:
        return made | {"rules": await _rules(session, verbs, resources, names)}
    if verbs or resources or names:
        raise click.UsageError("--aggregation-rule takes no --verb, --resource, --resource-name")
    pairs = [one.partition("=") for each in labels for one in each.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise click.UsageError("--aggregation-rule must be LABEL=VALUE")
    wanted = {key: value for key, _, value in pairs}
    return made | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": wanted}]}}


@click.command(name="rolebinding")
@click.argument("name")
@click.option("--clusterrole", "cluster_role", default="")
@click.option("--role", default="")
@_subjects
@generator
def rolebinding(
    name: str,
    cluster_role: str,
    role: str,
    users: Sequence[str],
    groups: Sequence[str],
    accounts: Sequence[str],
) -> dict[str, Any]:
    """Give a role's permissions within a namespace.

    \b
    kcore create rolebinding alice-edits --clusterrole=edit --user=alice
    """
    if bool(role) == bool(cluster_role):
        raise click.UsageError("exactly one of --clusterrole or --role must be specified")
    kind = "Role" if role else "ClusterRole"
    made = _binding(name, kind, role or cluster_role, users, groups, accounts)
    return {"kind": "RoleBinding"} | made


@click.command(name="clusterrolebinding")
@click.argument("name")
@click.option("--clusterrole", "cluster_role", required=True)
@_subjects
@generator
def clusterrolebinding(
    name: str,
    cluster_role: str,
    users: Sequence[str],
    groups: Sequence[str],
    accounts: Sequence[str],
) -> dict[str, Any]:
    """Give a cluster role's permissions everywhere.

    \b
    kcore create clusterrolebinding ops --clusterrole=cluster-admin --group=ops
    """
    made = _binding(name, "ClusterRole", cluster_role, users, groups, accounts)
    return {"kind": "ClusterRoleBinding"} | made


@click.command(name="token")
@click.argument("account", metavar="SERVICE_ACCOUNT")
@click.option("--audience", "audiences", multiple=True, help="Whom it is for; else this server.")
@click.option("--duration", default="", metavar="1h30m", help="How long it lasts; else an hour.")
@click.option("--bound-object-kind", "kind", type=click.Choice(["Pod"]), default=None,
              help="What it ends with.")  # fmt: skip
@click.option("--bound-object-name", "pod", default="")
@click.option("--bound-object-uid", "uid", default="")
@options.namespace
@click.pass_obj
async def token(
    session: Session,
    account: str,
    audiences: Sequence[str],
    duration: str,
    kind: str | None,
    pod: str,
    uid: str,
) -> int:
    """Show a new token of a service account.

    \b
    kcore create token robot --duration=10m
    """
    if bool(kind) != bool(pod):
        raise click.UsageError("--bound-object-kind and --bound-object-name go together")
    request = auth_pb2.CreateTokenRequest(
        namespace=session.namespace,
        name=account,
        audiences=audiences,
        expiration_seconds=_seconds(duration),
        pod=pod,
        pod_uid=uid,
    )
    # Identity is the connection's: there is none in process.
    answer = await cast(Any, await session.api()).create_token(request)
    session.out(answer.token)
    return 0


def _binding(
    name: str,
    kind: str,
    role: str,
    users: Sequence[str],
    groups: Sequence[str],
    accounts: Sequence[str],
) -> dict[str, Any]:
    subjects = [{"apiGroup": _GROUP, "kind": "User", "name": one} for one in users]
    subjects += [{"apiGroup": _GROUP, "kind": "Group", "name": one} for one in groups]
    for one in accounts:
        namespace, _, account = one.partition(":")
        if not namespace or not account:
            raise click.UsageError("--serviceaccount must be NAMESPACE:NAME")
        subjects.append({"kind": "ServiceAccount", "namespace": namespace, "name": account})
    return {
        "apiVersion": _VERSION,
        "metadata": {"name": name},
        "subjects": subjects,
        "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": role},
    }


async def _rules(
    session: Session, verbs: Sequence[str], resources: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """One for each API group."""
    words = _words(verbs)
    if not words:
        raise click.UsageError("at least one --verb must be specified")
    groups: dict[str, list[str]] = {}
    catalogue = await session.kinds()
    for word in _words(resources):
        kind, slash, subresource = word.partition("/")
        if kind == "*":
            group, plural = "*", "*"
        else:
            found = catalogue.one(kind)
            group, plural = found.group, found.options.plural
        groups.setdefault(group, []).append(f"{plural}{slash}{subresource}")
    if not groups:
        raise click.UsageError("at least one --resource must be specified")
    more = {"resourceNames": _words(names)} if names else {}
    return [
        {"verbs": words, "apiGroups": [group], "resources": listed, **more}
        for group, listed in groups.items()
    ]


def _words(given: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(word for one in given for word in one.split(",") if word))


def _seconds(duration: str) -> int:
    parts = re.findall(r"(\d+)([smh])", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise click.UsageError(f'--duration must be like 10m or 1h30m, not "{duration}"')
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)
