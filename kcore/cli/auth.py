"""`kcore auth`: who I am to the server, and what I may do."""

from typing import TYPE_CHECKING, cast

import click
from kcore_api.kcore.api.v1 import auth_pb2

from kcore.cli import options, output
from kcore.cli.session import FAILED, Session
from kcore.cli.table import Table

if TYPE_CHECKING:
    from kcore.client.channel import Channel


@click.group()
def auth() -> None:
    """Show who you are and what you may do."""


@auth.command()
@options.output
@click.pass_obj
async def whoami(session: Session, form: str) -> int:
    """Show who you are to the server.

    \b
    kcore auth whoami
    """
    output.check(form, ("yaml", "json"))
    # Identity is the connection's: there is none in process.
    found = await cast("Channel", await session.api()).who_am_i()
    if form:
        info = {"username": found.user, "groups": list(found.groups)}
        review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
        session.out(output.text({**review, "status": {"userInfo": info}}, form))
        return 0
    rows = [["Username", found.user], ["Groups", f"[{' '.join(found.groups)}]"]]
    for line in Table(["ATTRIBUTE", "VALUE"]).lines(rows):
        session.out(line)
    return 0


@auth.command(name="can-i")
@click.argument("verb", default="")
@click.argument("kind", metavar="KIND[/SUBRESOURCE | /NAME]", default="")
@click.argument("name", default="")
@click.option("--list", "all_", is_flag=True, help="Show all that you may do in the namespace.")
@options.namespace
@options.everywhere
@click.option("--subresource", default="", help="Part of the object: log, exec, status, ….")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit code.")
@click.pass_obj
async def can_i(
    session: Session,
    verb: str,
    kind: str,
    name: str,
    all_: bool,
    all_namespaces: bool,
    subresource: str,
    quiet: bool,
) -> int:
    """Show whether you may do something; exit code 1 if not.

    \b
    kcore auth can-i create deployments -n shop
    kcore auth can-i create pods --subresource=exec
    kcore auth can-i get secrets/db
    kcore auth can-i --list
    """
    if all_:
        if verb or subresource or quiet:
            raise click.UsageError("--list goes only together with a namespace")
        return await _list(session, "" if all_namespaces else session.namespace)
    if not verb or not kind:
        raise click.UsageError(
            "you must specify two arguments: verb resource or verb resource/name"
        )
    word, _, below = kind.partition("/")
    name = name or below
    full = word
    namespace = "" if all_namespaces else session.namespace
    if word != "*":
        found = (await session.kinds()).one(word)
        full = found.full_name
        if not found.namespaced:
            namespace = ""
    request = auth_pb2.CanIRequest(
        verb=verb, kind=full, namespace=namespace, name=name, subresource=subresource
    )
    answer = await cast("Channel", await session.api()).can_i(request)
    if not quiet:
        session.out("yes" if answer.allowed else f"no - {answer.reason}")
    return 0 if answer.allowed else FAILED


async def _list(session: Session, namespace: str) -> int:
    """All that one may do there, a line for each resource."""
    request = auth_pb2.ListPermissionsRequest(namespace=namespace)
    answer = await cast("Channel", await session.api()).permissions(request)
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for one in answer.permissions:
        names = f"[{' '.join(one.resource_names)}]"
        for group in one.api_groups:
            for resource in one.resources:
                whole = f"{resource}.{group}" if group else resource
                lines.setdefault((whole, names), {}).update(dict.fromkeys(one.verbs))
    rows = [
        [resource, "[]", names, f"[{' '.join(verbs)}]"]
        for (resource, names), verbs in sorted(lines.items())
    ]
    for line in Table(["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]).lines(rows):
        session.out(line)
    if answer.incomplete:
        session.say(f"warning: the list may be incomplete: {answer.incomplete}")
    return 0
