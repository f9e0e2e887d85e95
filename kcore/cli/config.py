"""`kcore config`: the kubeconfig, looked at and switched."""

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
    """Show the merged kubeconfig."""
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
    """Show the current context's name."""
    name = session.config().current_context
    if not name:
        raise Exit(FAILED, "error: there is no current context")
    session.out(name)


@config.command(name="get-contexts")
@click.option("--no-headers", is_flag=True, help="Without the first line.")
@click.option("-o", "--output", "form", type=click.Choice(["", "name"]), default="")
@click.pass_obj
def get_contexts(session: Session, no_headers: bool, form: str) -> None:
    """List the contexts."""
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
    """Make a context the current one."""
    kubeconfig.use_context(session.config(), name)
    session.out(f'Switched to context "{name}".')


@config.command(name="set-context")
@click.argument("name", default="")
@click.option("--current", is_flag=True, help="The current one.")
@click.option("--namespace", "-n", required=True, help="Its namespace.")
@click.pass_obj
def set_context(session: Session, name: str, current: bool, namespace: str) -> None:
    """Set a context's namespace."""
    merged = session.config()
    if current == bool(name):
        raise click.UsageError("name a context, or say --current")
    name = name or merged.current_context
    kubeconfig.set_namespace(merged, name, namespace)
    session.out(f'Context "{name}" modified.')


def _only(entries: dict[str, dict[str, object]], name: object) -> dict[str, dict[str, object]]:
    return {k: v for k, v in entries.items() if k == name}
