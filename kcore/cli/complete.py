"""What the shell offers on Tab: commands and options by click, names by the server.

A parameter is completed by what it is called (`_BY_NAME`). The server has 300 ms to answer; what
goes wrong is silent, since nobody wants to read it in the middle of his line.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from kcore.cli import objects
from kcore.cli import pod as pod_of
from kcore.cli.session import Session
from kcore.client import kinds

VARIABLE: Final = "_KCORE_COMPLETE"
DEADLINE_SECONDS = 0.3

Names = Callable[[Session, click.Context, str], Awaitable[Iterable[str]]]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes the shell complete commands.

    \b
    source <(kcore completion bash)
    kcore completion fish > ~/.config/fish/completions/kcore.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    ctx.ensure_object(Session).out(made(ctx.find_root().command, {}, "kcore", VARIABLE).source())


def attach(command: click.Command) -> None:
    """Lets the command's parameters be completed by what the server knows."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        attach(below)
    for parameter in command.params:
        names = _BY_NAME.get((command.name or "", parameter.name or "")) or _BY_NAME.get(
            ("", parameter.name or "")
        )
        if names is not None:
            parameter.shell_complete = _completer(names)  # type: ignore[method-assign, assignment]


def _completer(names: Names) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # gRPC talks to stderr when a server is not there.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        session = ctx.ensure_object(Session)
        above = ctx.find_root().params
        session.context = above.get("context") or session.context
        session.config_path = above.get("config_path") or session.config_path
        session.namespace_option = session.namespace_option or above.get("namespace") or ""

        async def ask() -> list[str]:
            # Not the server's time: our own beginning.
            kinds.built_in()
            with suppress(Exception):
                await session.api()
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    return sorted(set(await names(session, ctx, incomplete)))
            finally:
                await session.close()

        try:
            found = asyncio.run(ask())
        except Exception:
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return complete


async def _of_kind(session: Session, word: str) -> list[str]:
    kind = (await session.kinds()).one(word)
    listing = await objects.listing(session, kind, session.namespace)
    return [objects.metadata(one).name for one in listing.items]


async def _subjects(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Kinds, then names of the kind; or kind/name."""
    before = list(ctx.params.get("words") or ())
    word, slash, _ = incomplete.rpartition("/")
    if slash:
        return [f"{word}/{name}" for name in await _of_kind(session, word)]
    if not before:
        return await _kinds(session)
    if "/" in before[0]:
        return [f"{name}/" for name in await _kinds(session)]
    return [name for name in await _of_kind(session, before[0]) if name not in before]


async def _kinds(session: Session) -> list[str]:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            known = (await session.kinds()).kinds
    except Exception:
        # Without a server there are those that we know ourselves.
        known = kinds.built_in().kinds
    return [kind.options.plural for kind in known]


async def _pods(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Pods; or kind/name."""
    word, slash, _ = incomplete.rpartition("/")
    if slash:
        return [f"{word}/{name}" for name in await _of_kind(session, word)]
    return await _of_kind(session, "pods")


async def _in_pods(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """For cp: a pod and its colon."""
    return [f"{name}:" for name in await _of_kind(session, "pods")]


async def _containers(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    # Where an option still lacks its value, click has not told arguments apart.
    said = ctx.params.get("target") or ctx.params.get("source") or next(iter(ctx.args), "")
    target = str(said).partition(":")[0]
    pod: Any = await pod_of.find(session, target)
    return [one.name for one in (*pod.spec.containers, *pod.spec.init_containers)]


async def _namespaces(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return await _of_kind(session, "namespaces")


async def _contexts(session: Session, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return session.config().contexts


# By command ("": any) and parameter.
_BY_NAME: Final[dict[tuple[str, str], Names]] = {
    ("", "words"): _subjects,
    ("", "target"): _pods,
    ("cp", "source"): _in_pods,
    ("cp", "target"): _in_pods,
    ("", "container"): _containers,
    ("", "container_argument"): _containers,
    ("", "namespace"): _namespaces,
    ("", "context"): _contexts,
    ("ns", "name"): _namespaces,
    ("ctx", "name"): _contexts,
    ("use-context", "name"): _contexts,
    ("set-context", "name"): _contexts,
    ("rename-context", "name"): _contexts,
    ("delete-context", "name"): _contexts,
}
