"""The composition root: which rooms make up a process.

`kcore <verb>` is the command line (kcore/cli). The hidden commands are kcore's own processes, which
`kcore up` starts under one parent: `parent` itself, `apiserver` (the kernel behind gRPC) and
`rooms` (everything else, each with an identity of its own).
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from kcore.cli import root


def main() -> None:
    """The program `kcore`."""
    for command in (parent, apiserver, rooms):
        root.root.add_command(command)
    root.main()


def _setup_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--node", required=True),
        click.option("--port", type=int, default=6443),
        click.option("--root", type=click.Path(path_type=Path), default=None),
    ):
        function = option(function)
    return function


@click.command(hidden=True)
@_setup_options
def parent(node: str, port: int, root: Path | None) -> None:
    """Keeps kcore's processes running."""
    from kcore.boot import place, up
    from kcore.clock import SystemClock

    sys.exit(up.keep(up.Setup(place.Place.under(root), node, port), SystemClock()))


@click.command(hidden=True)
@_setup_options
def apiserver(node: str, port: int, root: Path | None) -> None:
    """The kernel and its gRPC face."""
    from kcore.boot import place, up

    _run(_apiserver(up.Setup(place.Place.under(root), node, port)))


@click.command(hidden=True)
@_setup_options
def rooms(node: str, port: int, root: Path | None) -> None:
    """Controllers, scheduler, kubelet and network of a one-node cluster."""
    from kcore.boot import place, up

    _run(_rooms(up.Setup(place.Place.under(root), node, port)))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import uvloop

    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname).1s %(name)s %(message)s",
    )

    async def until_told() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    try:
        uvloop.run(until_told())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(0)


if __name__ == "__main__":
    main()
