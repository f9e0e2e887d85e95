"""`kcore exec`: a command in a container; its streams are ours, its exit code is ours."""

import click
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import objects, options, pod, terminal
from kcore.cli.session import FAILED, Exit, Session


@click.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("target", metavar="POD | KIND/NAME")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED,
                metavar="-- COMMAND [ARG...]")  # fmt: skip
@options.namespace
@click.option("-c", "--container", default="", help="Which container; else the default one.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what the command says.")
@click.pass_obj
async def exec_(
    session: Session,
    target: str,
    command: tuple[str, ...],
    container: str,
    stdin: bool,
    tty: bool,
    quiet: bool,
) -> int:
    """Run a command in a container; its exit code is this one's.

    \b
    kcore exec web-0 -- ls /
    kcore exec -it deploy/web -- sh
    """
    found = await pod.find(session, target)
    metadata = objects.metadata(found)
    opening = pod_stream_pb2.ExecOpen(
        target=pod_stream_pb2.Target(
            namespace=metadata.namespace,
            pod=metadata.name,
            uid=metadata.uid,
            container=container if quiet else pod.container(session, found, container),
        ),
        command=command,
        stdin=stdin,
        tty=tty and (not stdin or terminal.usable(session)),
    )
    streams = await session.streams()
    code = await terminal.join(session, streams.exec, pod_stream_pb2.ExecRequest(open=opening))
    if code is None:
        raise Exit(FAILED, "error: the stream ended before the command did")
    return code
