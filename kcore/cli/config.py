"""`kcore config`: the kubeconfig, looked at and switched."""

import base64
import os
from typing import Any

import click

from kcore.cli import options, output
from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.table import Table
from kcore.client import kubeconfig


@click.group()
def config() -> None:
    """Show and change the kubeconfig."""


@config.command()
@options.output
@click.option("--raw", is_flag=True, help="With what is secret.")
@click.option("--minify", is_flag=True, help="Only what the current context needs.")
@click.pass_obj
def view(session: Session, form: str, raw: bool, minify: bool) -> None:
    """Show the merged kubeconfig.

    \b
    kcore config view --minify
    """
    output.check(form, ("yaml", "json"))
    merged = session.config()
    if minify:
        name = session.context or merged.current_context
        context = merged.contexts.get(name)
        if context is None:
            raise Exit(FAILED, "error: there is no current context")
        merged.contexts = {name: context}
        merged.clusters = _only(merged.clusters, context.get("cluster"))
        merged.users = _only(merged.users, context.get("user"))
        merged.current_context = name
    session.out(output.text(kubeconfig.plain(merged, secrets=raw), form or "yaml"))


@config.command(name="current-context")
@click.pass_obj
def current_context(session: Session) -> None:
    """Show the current context's name.

    \b
    kcore config current-context
    """
    name = session.config().current_context
    if not name:
        raise Exit(FAILED, "error: there is no current context")
    session.out(name)


@config.command(name="get-contexts")
@click.option("--no-headers", is_flag=True, help="Without the first line.")
@click.option("-o", "--output", "form", type=click.Choice(["", "name"]), default="")
@click.pass_obj
def get_contexts(session: Session, no_headers: bool, form: str) -> None:
    """List the contexts.

    \b
    kcore config get-contexts
    """
    merged = session.config()
    if form == "name":
        for name in merged.contexts:
            session.out(name)
        return
    rows = [
        [
            "*" if name == merged.current_context else "",
            name,
            str(context.get("cluster", "")),
            str(context.get("user", "")),
            str(context.get("namespace", "")),
        ]
        for name, context in sorted(merged.contexts.items())
    ]
    headers = ["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"]
    for line in Table(headers, show_headers=not no_headers).lines(rows):
        session.out(line)


@config.command(name="use-context")
@click.argument("name")
@click.pass_obj
def use_context(session: Session, name: str) -> None:
    """Make a context the current one.

    \b
    kcore config use-context production
    """
    kubeconfig.use_context(session.config(), name)
    session.out(f'Switched to context "{name}".')


@config.command(name="set-context")
@click.argument("name", default="")
@click.option("--current", is_flag=True, help="The current one.")
@click.option("--namespace", "-n", default=None, help="Its namespace.")
@click.option("--cluster", default=None, help="Its cluster.")
@click.option("--user", default=None, help="Its user.")
@click.pass_obj
def set_context(
    session: Session,
    name: str,
    current: bool,
    namespace: str | None,
    cluster: str | None,
    user: str | None,
) -> None:
    """Set what a context says, or make one.

    \b
    kcore config set-context --current --namespace=shop
    """
    merged = session.config()
    if current == bool(name):
        raise click.UsageError("name a context, or say --current")
    name = name or merged.current_context
    if not name:
        raise Exit(FAILED, "error: there is no current context")
    known = name in merged.contexts
    if namespace is not None and known:
        kubeconfig.set_namespace(merged, name, namespace)
        namespace = None
    said = {"cluster": cluster, "user": user, "namespace": namespace}
    said = {key: value for key, value in said.items() if value is not None}
    if said or not known:
        kubeconfig.put(merged, "contexts", name, said)
    session.out(f'Context "{name}" {"modified" if known else "created"}.')


@config.command(name="set-cluster")
@click.argument("name")
@click.option("--server", default=None, help="URL for clients of Kubernetes.")
@click.option("--grpc", default=None, help="Address for kcore: HOST:PORT.")
@click.option("--unix", default=None, help="Socket for kcore.")
@click.option("--certificate-authority", default=None, help="File with the authority.")
@click.option("--embed-certs", is_flag=True, help="Keep its content instead of its path.")
@click.option("--tls-server-name", default=None, help="Name in the server's certificate.")
@click.pass_obj
def set_cluster(
    session: Session,
    name: str,
    server: str | None,
    grpc: str | None,
    unix: str | None,
    certificate_authority: str | None,
    embed_certs: bool,
    tls_server_name: str | None,
) -> None:
    """Set what a cluster says, or make one.

    \b
    kcore config set-cluster c --grpc=kcore.example:6443
    """
    merged = session.config()
    known = merged.clusters.get(name)
    values: dict[str, Any] = {"server": server, "tls-server-name": tls_server_name}
    values |= _certificate("certificate-authority", certificate_authority, embed_certs)
    values = {key: value for key, value in values.items() if value is not None or "cert" in key}
    if grpc is not None or unix is not None:
        others = [
            one
            for one in (known or {}).get("extensions") or []
            if one.get("name") != kubeconfig.EXTENSION
        ]
        said = {"grpc": grpc, "unix": unix}
        endpoint = {key: value for key, value in said.items() if value}
        values["extensions"] = [*others, {"name": kubeconfig.EXTENSION, "extension": endpoint}]
    kubeconfig.put(merged, "clusters", name, values)
    session.out(f'Cluster "{name}" set.')


@config.command(name="set-credentials")
@click.argument("name")
@click.option("--token", default=None, help="Its bearer token.")
@click.option("--client-certificate", default=None, help="File with its certificate.")
@click.option("--client-key", default=None, help="File with its key.")
@click.option("--embed-certs", is_flag=True, help="Keep their content instead of their paths.")
@click.pass_obj
def set_credentials(
    session: Session,
    name: str,
    token: str | None,
    client_certificate: str | None,
    client_key: str | None,
    embed_certs: bool,
) -> None:
    """Set what a user says, or make one.

    \b
    kcore config set-credentials u --token=abc
    """
    values = {"token": token} if token is not None else {}
    values |= _certificate("client-certificate", client_certificate, embed_certs)
    values |= _certificate("client-key", client_key, embed_certs)
    kubeconfig.put(session.config(), "users", name, values)
    session.out(f'User "{name}" set.')


@config.command(name="rename-context")
@click.argument("name")
@click.argument("to")
@click.pass_obj
def rename_context(session: Session, name: str, to: str) -> None:
    """Give a context another name.

    \b
    kcore config rename-context production live
    """
    kubeconfig.rename_context(session.config(), name, to)
    session.out(f'Context "{name}" renamed to "{to}".')


def _certificate(key: str, path: str | None, embed: bool) -> dict[str, Any]:
    """The file's path, or its content in its place."""
    if path is None:
        return {}
    whole = os.path.abspath(path)
    if not embed:
        return {key: whole, f"{key}-data": None}
    try:
        with open(whole, "rb") as file:
            data = base64.b64encode(file.read(1 << 20)).decode()
    except OSError as wrong:
        raise Exit(FAILED, f"error: {wrong}") from None
    return {key: None, f"{key}-data": data}


def _lists(plural: str, singular: str) -> None:
    """`get-clusters` and `delete-cluster`, and so on."""

    @config.command(
        name=f"get-{plural}", help=f"List the {plural}.\n\n\b\nkcore config get-{plural}"
    )
    @click.pass_obj
    def names(session: Session) -> None:
        session.out("NAME")
        for name in sorted(getattr(session.config(), plural)):
            session.out(name)

    @config.command(
        name=f"delete-{singular}",
        help=f"Take a {singular} away.\n\n\b\nkcore config delete-{singular} {singular[0]}",
    )
    @click.argument("name")
    @click.pass_obj
    def delete(session: Session, name: str) -> None:
        path = kubeconfig.remove(session.config(), plural, name)
        session.out(f"deleted {singular} {name} from {path}")


_lists("clusters", "cluster")
_lists("users", "user")


@config.command(name="delete-context")
@click.argument("name")
@click.pass_obj
def delete_context(session: Session, name: str) -> None:
    """Take a context away.

    \b
    kcore config delete-context production
    """
    merged = session.config()
    path = kubeconfig.remove(merged, "contexts", name)
    if merged.current_context == name:
        session.say("warning: this removed your active context, use `kcore ctx` to select another")
    session.out(f"deleted context {name} from {path}")


def _only(entries: dict[str, dict[str, object]], name: object) -> dict[str, dict[str, object]]:
    return {k: v for k, v in entries.items() if k == name}
