"""`kcore ctx` and `kcore ns`: where commands work, shown and switched; `-` goes back."""

import click

from kcore.cli import objects
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import kubeconfig
from kcore.client.problem import meant

_CURRENT = "\x1b[1;32m"
_PLAIN = "\x1b[0m"


@click.command()
@click.argument("name", default="")
@click.option("-c", "--current", is_flag=True, help="Only show the current one.")
@click.pass_obj
def ctx(session: Session, name: str, current: bool) -> None:
    """Show the contexts, or switch to one.

    \b
    kcore ctx
    kcore ctx production
    kcore ctx -
    """
    merged = session.config()
    if current:
        if not merged.current_context:
            raise Exit(FAILED, "error: there is no current context")
        session.out(merged.current_context)
        return
    if not name:
        _show(session, sorted(merged.contexts), merged.current_context)
        return
    if name == "-":
        name = merged.previous_context
        if not name:
            raise Exit(FAILED, "error: no previous context found")
    kubeconfig.use_context(merged, name)
    session.out(f'Switched to context "{name}".')


@click.command()
@click.argument("name", default="")
@click.option("-c", "--current", is_flag=True, help="Only show the current one.")
@click.option("--force", is_flag=True, help="Also to one that is not there.")
@click.pass_obj
async def ns(session: Session, name: str, current: bool, force: bool) -> int:
    """Show the namespaces, or make one the context's.

    \b
    kcore ns
    kcore ns shop
    kcore ns -
    """
    if current:
        session.out(session.namespace)
        return 0
    if not name:
        _show(session, await _namespaces(session), session.namespace)
        return 0
    merged = session.config()
    context = session.context or merged.current_context
    if not context:
        raise Exit(
            FAILED,
            "error: there is no context to keep the namespace in; say -n, or make one with"
            " `kcore config set-context`",
        )
    if name == "-":
        name = merged.previous_namespaces.get(context, "")
        if not name:
            raise Exit(FAILED, f'error: no previous namespace found for context "{context}"')
    elif not force:
        known = await _namespaces(session)
        if name not in known:
            raise Exit(FAILED, f'error: there is no namespace "{name}"{meant(name, known)}')
    kubeconfig.set_namespace(merged, context, name)
    session.out(f'Context "{context}" modified.')
    session.out(f'Active namespace is "{name}".')
    return 0


async def _namespaces(session: Session) -> list[str]:
    kind = (await session.kinds()).of_type("v1", "Namespace")
    listing = await objects.listing(session, kind, "")
    return sorted(objects.metadata(one).name for one in listing.items)


def _show(session: Session, names: list[str], current: str) -> None:
    colored = session.colored(session.stdout)
    for name in names:
        session.out(f"{_CURRENT}{name}{_PLAIN}" if colored and name == current else name)
