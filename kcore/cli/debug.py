"""`kcore debug`: a container added to a running pod, to look at what its image has no tools for."""

from contextlib import aclosing
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import attach, change, follow, objects, options, pod
from kcore.cli.session import FAILED, Exit, Session
from kcore.wire.errors import ApiError

_DOOR = "ephemeralcontainers"
# Reasons of waiting that are part of any start.
_USUAL = ("", "ContainerCreating", "PodInitializing")


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("target", metavar="POD | KIND/NAME")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG...]]")
@options.namespace
@click.option("--image", required=True, help="The image with the tools.")
@click.option("--target", "seen", default="", help="The container whose processes it sees.")
@click.option("-c", "--container", default="", help="Its name; else one is made up.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--attach/--no-attach", "joins", default=None, help="Join it; as -i unless said.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable of its environment.")
@click.option("--image-pull-policy", default="", help="Always, IfNotPresent or Never.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what it says.")
@click.pass_obj
async def debug(
    session: Session,
    target: str,
    command: tuple[str, ...],
    image: str,
    seen: str,
    container: str,
    stdin: bool,
    tty: bool,
    joins: bool | None,
    env: tuple[str, ...],
    image_pull_policy: str,
    quiet: bool,
) -> int:
    """Add a container to a running pod, to look at the others.

    It shares the pod's network, and with --target the processes of a container. It ends with the
    pod, and stays in its spec.

    \b
    kcore debug web-0 -it --image=busybox --target=nginx
    kcore debug deploy/web --image=busybox -- wget -qO- localhost:8080
    """
    if tty and not stdin:
        raise click.UsageError("-t needs -i")
    found: Any = await pod.find(session, target)
    name = container or f"debugger-{session.chance.suffix()}"
    if not quiet:
        if seen:
            session.say(f"Targeting container {seen!r}.")
        if not container:
            session.say(f"Defaulting debug container name to {name}.")
    made: dict[str, Any] = {"name": name, "image": image}
    made |= {key: True for key, given in (("stdin", stdin), ("tty", tty)) if given}
    if seen:
        made["targetContainerName"] = seen
    if command:
        made["command"] = list(command)
    if env:
        made["env"] = [_variable(one) for one in env]
    if image_pull_policy:
        made["imagePullPolicy"] = image_pull_policy

    def add(after: dict[str, Any]) -> None:
        after["spec"].setdefault("ephemeralContainers", []).append(made)

    pods = await pod.kind(session)
    await change.changed(session, pods, found, add, subresource=_DOOR)
    if not (stdin if joins is None else joins):
        return 0
    state = await _begun(session, found, name)
    if not state.HasField("terminated"):
        try:
            return await attach.join(session, found, name, stdin=stdin, tty=tty, quiet=quiet)
        except ApiError:
            # It may have ended before we came.
            state = await _begun(session, found, name)
            if not state.HasField("terminated"):
                raise
    await _show_log(session, found, name)
    return int(state.terminated.exit_code)


def _variable(text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--env {text}: write NAME=VALUE")
    return {"name": name, "value": value}


async def _begun(session: Session, found: Message, name: str) -> Any:
    """The state of the container once it runs, or has."""
    metadata, shown = objects.metadata(found), set(_USUAL)

    def holds(now: Message | None) -> bool:
        state = _state(now, name)
        if state is None:
            return now is None or _is_over(now)
        waiting = state.waiting
        if waiting.reason not in shown:
            shown.add(waiting.reason)
            session.say(f"Warning: container {name}: {waiting.reason}: {waiting.message}")
        return state.HasField("running") or state.HasField("terminated") or _is_over(now)

    pods = await pod.kind(session)
    last = await follow.until(session, pods, metadata.namespace, metadata.name, holds)
    state = _state(last, name)
    if state is None or state.HasField("waiting"):
        raise Exit(FAILED, f"error: pod {metadata.name} ended before container {name} began")
    return state


def _state(now: Any, name: str) -> Any:
    every = now.status.ephemeral_container_statuses if now is not None else ()
    return next((one.state for one in every if one.name == name), None)


def _is_over(now: Any) -> bool:
    return now.status.phase in pod.OVER


async def _show_log(session: Session, found: Message, name: str) -> None:
    metadata = objects.metadata(found)
    request = pod_stream_pb2.LogsRequest(
        target=pod_stream_pb2.Target(
            namespace=metadata.namespace, pod=metadata.name, uid=metadata.uid, container=name
        )
    )
    streams = await session.streams()
    async with aclosing(streams.logs(request)) as responses:
        async for response in responses:
            session.write(b"".join(line.text for line in response.lines))
