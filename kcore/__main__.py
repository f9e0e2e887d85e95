"""The composition root: which rooms make up a process.

`kcore <verb>` is the command line (kcore/cli). The hidden commands are kcore's own processes, which
`kcore up` starts under one parent: `parent` itself, `apiserver` (the kernel behind gRPC) and
`rooms` (everything else, each with an identity of its own).
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kcore.cli import root

if TYPE_CHECKING:
    from kcore.boot.setup import Setup
    from kcore.kernel import kernel


class _Ended(Exception):
    """What a process cannot go on without is wrong; says what, and what to do about it."""


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
        click.option("--store", default=""),
    ):
        function = option(function)
    return function


@click.command(hidden=True)
@_setup_options
def parent(node: str, port: int, root: Path | None, store: str) -> None:
    """Keeps kcore's processes running."""
    from kcore.boot import place, setup
    from kcore.clock import SystemClock

    sys.exit(setup.keep(setup.Setup(place.Place.under(root), node, port, store), SystemClock()))


@click.command(hidden=True)
@_setup_options
@click.option("--retain-seconds", type=float, default=3600.0, show_default=True,
              help="The past is kept for so long,")  # fmt: skip
@click.option("--retain-revisions", type=int, default=100_000, show_default=True,
              help="or for so many revisions, if these are fewer.")  # fmt: skip
@click.option("--compact-seconds", type=float, default=30.0, show_default=True,
              help="How often what is older is let go.")  # fmt: skip
def apiserver(
    node: str,
    port: int,
    root: Path | None,
    store: str,
    retain_seconds: float,
    retain_revisions: int,
    compact_seconds: float,
) -> None:
    """The kernel and its gRPC face."""
    from kcore.boot import place, setup
    from kcore.kernel import kernel

    retention = kernel.Retention(retain_seconds, retain_revisions, compact_seconds)
    _run(_apiserver(setup.Setup(place.Place.under(root), node, port, store), retention))


@click.command(hidden=True)
@_setup_options
def rooms(node: str, port: int, root: Path | None, store: str) -> None:
    """Controllers, scheduler, kubelet, network and proxy of a one-node cluster."""
    from kcore.boot import place, setup

    _run(_rooms(setup.Setup(place.Place.under(root), node, port, store)))


async def _apiserver(setup: "Setup", retention: "kernel.Retention") -> None:
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
    kinds = schema.compile_schema(Path(kcore_api.KINDS).read_bytes())
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
            await apiserver.run(opened, listeners, clock, chance)
    except (Refused, CannotListen) as error:
        raise _Ended(str(error)) from error


async def _first(opened: "kernel.Kernel", setup: "Setup") -> None:
    """What every cluster has from the beginning."""
    from kcore_api.kcore.api.v1 import api_pb2 as pb

    from kcore.boot import certificates
    from kcore.boot import setup as setups
    from kcore.controllers import cluster, namespace

    has = cluster.Cluster(
        setups.CLUSTER_CIDR,
        apiserver=next((one for one in certificates.machine_addresses() if "." in one), ""),
        port=setup.port,
    )
    steps = [*namespace.first(), *cluster.first(has)]
    # What is there already is refused, and that is as well.
    await opened.commit(pb.CommitRequest(transactions=steps), "system:boot")


async def _rooms(setup: "Setup") -> None:
    from kcore import controllers
    from kcore.boot import certificates
    from kcore.chance import Chance
    from kcore.client import channel, kubeconfig
    from kcore.clock import SystemClock, local_zone
    from kcore.kubelet import cri
    from kcore.kubelet import node as node_settings
    from kcore.kubelet import run as kubelet
    from kcore.network import run as network
    from kcore.proxy import run as proxy
    from kcore.scheduler import run as scheduler
    from kcore.tasks import Tasks

    where, clock, chance = setup.place, SystemClock(), Chance()

    def connect(name: str) -> channel.Channel:
        certificate, key = certificates.files(where.pki, name)
        return channel.connect(
            kubeconfig.Target(
                grpc=f"127.0.0.1:{setup.mutual_port}",
                authority=where.ca.read_bytes(),
                client_certificate=certificate.read_bytes(),
                client_key=key.read_bytes(),
                client_certificate_file=str(certificate),
                client_key_file=str(key),
            )
        )

    settings = kubelet.Settings(
        node=node_settings.Settings(name=setup.node, root=where.kubelet),
        logs=where.kubelet / "logs",
        manifests=where.manifests,
    )
    async with (
        connect(certificates.CONTROLLER_MANAGER) as manager,
        connect(certificates.SCHEDULER) as binder,
        connect(certificates.KUBELET) as node,
        connect(certificates.PROXY) as services,
        cri.Cri(setup.runtime_endpoint) as runtime,
        Tasks() as tasks,
    ):
        authority = where.ca.read_text()
        controllers_chance = chance.fork("controllers")
        tasks.start(controllers.run(manager, clock, controllers_chance, authority, local_zone()))
        tasks.start(scheduler.run(binder, clock, chance.fork("scheduler")))
        tasks.start(kubelet.run(node, node, runtime, settings, clock, chance.fork("kubelet")))
        tasks.start(network.run(node, setup.node, where.cni_config, where.cni_state, clock))
        tasks.start(proxy.run(services, setup.node, clock, chance.fork("proxy")))


def _run(work: Coroutine[Any, Any, None]) -> None:
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
