"""The composition root: which rooms make up a process.

`kcore <verb>` is the command line (kcore/cli). The hidden commands are kcore's own processes, which
`kcore up` starts under one parent: `parent` itself, `apiserver` (the kernel behind gRPC) and
`rooms` (everything else, each with an identity of its own).
"""

import gc

# What is imported is there to stay: to look through it for garbage, again and again, takes a
# seventh of the time of a short command. What makes garbage without end is still looked through.
_USUAL = gc.get_threshold()
gc.set_threshold(100_000)

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kcore.cli import root

if TYPE_CHECKING:
    from kcore.boot.setup import Setup
    from kcore.chance import Chance
    from kcore.client import channel
    from kcore.kernel import kernel

    Connect = Callable[[str], Awaitable[channel.Channel]]


class _Ended(Exception):
    """What a process cannot go on without is wrong; says what, and what to do about it."""


def main() -> None:
    """The program `kcore`."""
    for command in (parent, machine, apiserver, rooms):
        root.root.add_command(command)
    try:
        root.main()
    finally:
        # It all ends with the process, and is not looked through once more.
        gc.freeze()


def _of_setup(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the `Setup` that its options tell, and all other options as they are."""

    @functools.wraps(function)
    def command(
        node: str,
        port: int,
        root: Path | None,
        store: str,
        part: tuple[str, ...],
        server: str,
        dns: str,
        **more: Any,
    ) -> Any:
        from kcore.boot import place, setup

        parts = part or setup.PARTS
        where = place.Place.under(root)
        return function(setup.Setup(where, node, port, store, parts, server, dns), **more)

    for option in (
        click.option("--node", required=True),
        click.option("--port", type=int, default=6443),
        click.option("--root", type=click.Path(path_type=Path), default=None),
        click.option("--store", default=""),
        click.option("--part", multiple=True),
        click.option("--server", default=""),
        click.option("--dns", default=""),
    ):
        command = option(command)
    return command


@click.command(hidden=True)
@_of_setup
def parent(setup: "Setup") -> None:
    """Keeps kcore's processes running."""
    from kcore.boot import setup as setups
    from kcore.clock import SystemClock

    sys.exit(setups.keep(setup, SystemClock()))


@click.command(hidden=True)
@_of_setup
def machine(setup: "Setup") -> None:
    """Makes this machine, or this network namespace, run its parts; for `kcore lab`."""
    from kcore.boot import up
    from kcore.chance import Chance
    from kcore.clock import SystemClock

    async def work() -> None:
        for step in up.steps(setup, SystemClock(), Chance()):
            await step.work()

    try:
        asyncio.run(work())
    except Exception as error:
        print(f"{setup.node}: {error}", file=sys.stderr)
        sys.exit(1)


@click.command(hidden=True)
@_of_setup
@click.option("--retain-seconds", type=float, default=3600.0, show_default=True,
              help="The past is kept for so long,")  # fmt: skip
@click.option("--retain-revisions", type=int, default=100_000, show_default=True,
              help="or for so many revisions, if these are fewer.")  # fmt: skip
@click.option("--compact-seconds", type=float, default=30.0, show_default=True,
              help="How often what is older is let go.")  # fmt: skip
def apiserver(
    setup: "Setup", retain_seconds: float, retain_revisions: int, compact_seconds: float
) -> None:
    """The kernel and its gRPC face."""
    from kcore.kernel import kernel

    retention = kernel.Retention(retain_seconds, retain_revisions, compact_seconds)
    _run(_apiserver(setup, retention))


@click.command(hidden=True)
@_of_setup
def rooms(setup: "Setup") -> None:
    """Everything else: controllers and scheduler, kubelet, network and proxy."""
    _run(_rooms(setup))


async def _apiserver(setup: "Setup", retention: "kernel.Retention") -> None:
    # What is made until it serves is there to stay: who looks for garbage in it looks in vain.
    gc.disable()
    import kcore_api

    from kcore import admission
    from kcore.apiserver import run as apiserver
    from kcore.apiserver.serve import CannotListen
    from kcore.boot import certificates, stores
    from kcore.chance import Chance
    from kcore.client import codec
    from kcore.clock import SystemClock
    from kcore.kernel import kernel, schema
    from kcore.kernel.store import Refused

    where, clock, chance = setup.place, SystemClock(), Chance()
    kinds = schema.compile_schema(Path(kcore_api.KINDS).read_bytes(), proven=True)
    named = setup.store or f"sqlite:{where.database}"
    try:
        store = stores.store_of(named, clock, chance, where.mark)
    except stores.StoreError as error:
        raise _Ended(str(error)) from error
    certificate, key = certificates.files(where.pki, certificates.SERVER)
    listeners = apiserver.Listeners(
        socket=where.socket,
        tls=f"[::]:{setup.port}",
        mutual=f"[::]:{setup.mutual_port}",
        probe=f"127.0.0.1:{setup.probe_port}",
        certificate=certificate,
        key=key,
        authority=where.ca,
        tokens=apiserver.owner(where.admin_token),
        account_key=where.pki / certificates.ACCOUNT_KEY,
    )
    try:
        async with kernel.opened(
            store,
            kinds,
            admission.BY_KIND,
            clock,
            chance,
            codec=codec,
            leaving=admission.ON_DELETE,
            retention=retention,
        ) as opened:
            await _first(opened, setup)
            gc.freeze()
            gc.enable()
            await apiserver.run(opened, listeners, clock, chance)
    except (Refused, CannotListen) as error:
        raise _Ended(str(error)) from error


async def _first(opened: "kernel.Kernel", setup: "Setup") -> None:
    """What every cluster has from the beginning."""
    import grpc
    from kcore_api.kcore.api.v1 import api_pb2 as pb

    from kcore.boot import certificates
    from kcore.boot import setup as setups
    from kcore.controllers import cluster, namespace, roles

    has = cluster.Cluster(setups.CLUSTER_CIDR, certificates.reachable_address(), port=setup.port)
    steps = [*namespace.first(), *cluster.first(has), *roles.first()]
    answer = await opened.commit(pb.CommitRequest(transactions=steps), "system:boot")
    for result in answer.results:
        # What is there already is refused, and that is as well.
        if result.error.code not in (0, grpc.StatusCode.ALREADY_EXISTS.value[0]):
            logging.warning("what every cluster has: %s", result.error.message)


async def _rooms(setup: "Setup") -> None:
    from kcore.boot import setup as setups
    from kcore.chance import Chance
    from kcore.tasks import Tasks

    async with contextlib.AsyncExitStack() as stack:
        connect = functools.partial(_connect, stack, setup)
        works: list[Coroutine[Any, Any, None]] = []
        if setups.CONTROL in setup.parts:
            works += await _control(setup, connect, Chance())
        if setups.NODE in setup.parts:
            works += await _node(setup, connect, Chance(), stack)
        # Last to be entered: while any of them works, all connections stay open.
        tasks = await stack.enter_async_context(Tasks())
        for work in works:
            tasks.start(work)


async def _connect(
    stack: contextlib.AsyncExitStack, setup: "Setup", name: str
) -> "channel.Channel":
    """A connection of one component, by its own name."""
    from kcore.boot import certificates
    from kcore.client import channel, kubeconfig

    certificate, key = certificates.files(setup.place.pki, name)
    target = kubeconfig.Target(
        grpc=setup.endpoint,
        authority=setup.place.ca.read_bytes(),
        client_certificate=certificate.read_bytes(),
        client_key=key.read_bytes(),
        client_certificate_file=str(certificate),
        client_key_file=str(key),
    )
    return await stack.enter_async_context(channel.connect(target))


async def _control(
    setup: "Setup", connect: "Connect", chance: "Chance"
) -> Sequence[Coroutine[Any, Any, None]]:
    """What a cluster has once."""
    from kcore.boot import certificates
    from kcore.clock import SystemClock, local_zone
    from kcore.controllers import run as controllers
    from kcore.scheduler import run as scheduler

    clock, authority = SystemClock(), setup.place.ca.read_text()
    manager = await connect(certificates.CONTROLLER_MANAGER)
    binder = await connect(certificates.SCHEDULER)
    return (
        controllers.run(manager, clock, chance.fork("controllers"), authority, local_zone()),
        scheduler.run(binder, clock, chance.fork("scheduler")),
    )


async def _node(
    setup: "Setup", connect: "Connect", chance: "Chance", stack: contextlib.AsyncExitStack
) -> Sequence[Coroutine[Any, Any, None]]:
    """What every node has."""
    from kcore.boot import certificates
    from kcore.clock import SystemClock
    from kcore.dns import run as dns
    from kcore.kubelet import cri
    from kcore.kubelet import node as node_settings
    from kcore.kubelet import run as kubelet
    from kcore.network import run as network
    from kcore.proxy import run as proxy

    where, clock = setup.place, SystemClock()
    settings = kubelet.Settings(
        node=node_settings.Settings(name=setup.node, root=where.kubelet),
        logs=where.kubelet / "logs",
        manifests=where.manifests,
        cluster_dns=(setup.dns,) if setup.dns else (),
    )
    runtime = await stack.enter_async_context(cri.Cri(setup.runtime_endpoint))
    node = await connect(certificates.KUBELET)
    services = await connect(certificates.PROXY)
    places = where.cni_config, where.cni_state
    works: list[Coroutine[Any, Any, None]] = [
        kubelet.run(node, node, runtime, settings, clock, chance.fork("kubelet")),
        network.run(node, setup.node, *places, clock, chance.fork("network")),
        proxy.run(services, setup.node, clock, chance.fork("proxy")),
    ]
    if setup.dns:
        # On every node: whichever CoreDNS is on has the files.
        names = await connect(certificates.DNS)
        works.append(
            dns.run(names, where.dns, "/etc/coredns", setup.dns, clock, chance.fork("dns"))
        )
    return works


def _run(work: Coroutine[Any, Any, None]) -> None:
    gc.set_threshold(*_USUAL)
    # gRPC's own threads do not mind that nft and mount are started beside them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import uvloop

    from kcore.boot import setup

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
    except _Ended as error:
        # In one line: `kcore up` looks for it in the log.
        print(f"{setup.ERROR}{error}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
