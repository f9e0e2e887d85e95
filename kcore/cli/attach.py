"""`kcore attach`: join the main process of a container; when it ends, its exit code is ours."""

from typing import Any

import click
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import objects, options, pod, terminal
from kcore.cli.session import Session


@click.command()
@click.argument("target", metavar="POD | KIND/NAME")
@options.namespace
@click.option("-c", "--container", default="", help="Which container; else the default one.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Standard input is a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what the process says.")
@click.pass_obj
async def attach(
    session: Session, target: str, container: str, stdin: bool, tty: bool, quiet: bool
) -> int:
    """Join the main process of a container.

    \b
    kcore attach web-0
    kcore attach -it deploy/shell -c main
    """
    found: Any = await pod.find(session, target)
    name = container or (
        pod.default_container(found) if quiet else pod.container(session, found, "")
    )
    return await join(session, found, name, stdin=stdin, tty=tty, quiet=quiet)


async def join(
    session: Session, found: Any, name: str, *, stdin: bool, tty: bool, quiet: bool
) -> int:
    """Until the container's main process has ended; its exit code."""
    every = (
        *found.spec.containers,
        *found.spec.init_containers,
        *(one.ephemeral_container_common for one in found.spec.ephemeral_containers),
    )
    there = next((one for one in every if one.name == name), None)
    has_terminal = there is not None and there.tty
    if tty and not has_terminal and not quiet:
        session.say(f"Unable to use a TTY - container {name} did not allocate one")
    if tty and has_terminal and stdin:
        terminal.usable(session)
    if stdin and there is not None and not there.stdin and not quiet:
        session.say(f"Warning: container {name} takes no standard input (stdin: true)")
    if has_terminal and stdin and not quiet:
        session.say("If you don't see a command prompt, try pressing enter.")
    metadata = objects.metadata(found)
    opening = pod_stream_pb2.AttachOpen(
        target=pod_stream_pb2.Target(
            namespace=metadata.namespace, pod=metadata.name, uid=metadata.uid, container=name
        ),
        stdin=stdin,
        # Its output is what a terminal makes of it, whether we have one or not.
        tty=has_terminal,
    )
    streams = await session.streams()
    request = pod_stream_pb2.AttachRequest(open=opening)
    code = await terminal.join(session, streams.attach, request, redraw=True)
    if stdin and has_terminal and not quiet and _comes_back(found):
        session.say(
            f"Session ended, resume using 'kcore attach {metadata.name} -c {name} -i -t'"
            " command when the pod is running"
        )
    return code or 0


def _comes_back(found: Any) -> bool:
    return found.spec.restart_policy in ("", "Always")
