"""`kcore lab up` and `kcore lab down`: a cluster of several nodes on one machine.

The work is kcore/boot's. This shows progress, writes the kubeconfig and waits for the nodes.
"""

import os
from pathlib import Path
from typing import Any

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2
from kcore_api.kcore.core.v1 import node_pb2

from kcore.boot import lab as labs
from kcore.cli.session import FAILED, NOT_READY, Exit, Session
from kcore.cli.up import Progress, add_ons
from kcore.client import kubeconfig
from kcore.wire.errors import ApiError

ROOT = Path("/var/lib/kcore-lab")
READY_SECONDS = 180.0
AGAIN_SECONDS = 0.2


@click.group()
def lab() -> None:
    """A cluster of several nodes on this machine, to try things out.

    \b
    kcore lab up 3
    kcore lab down
    """


def _options(function: Any) -> Any:
    for option in (
        click.option("--name", default="lab", show_default=True, help="Several can live here."),
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            default=ROOT,
            show_default=True,
            help="Keep everything below DIR.",
        ),
    ):
        function = option(function)
    return function


@lab.command()
@click.argument("nodes", type=int, default=3)
@_options
@click.option("--apart", is_flag=True, help="Every node on a link of its own.")
@click.option(
    "--network", type=int, default=31, show_default=True, help="N of its addresses, 172.N.0.0/16."
)
@click.pass_obj
async def up(session: Session, nodes: int, name: str, root: Path, apart: bool, network: int) -> int:
    """Make a cluster of so many nodes. Repeating it does no harm.

    \b
    kcore lab up 3
    """
    if os.geteuid() != 0:
        raise Exit(FAILED, "error: kcore lab needs root: it makes network namespaces")
    progress = Progress(session, False)
    try:
        asked = labs.Lab(root.absolute(), nodes, name, apart, network)
        await labs.make(asked, session.clock, session.chance)
        progress.done("lab", f"{nodes} nodes on {asked.bridge}, 172.{network}.0.0/16")
        for machine in labs.machines(asked):
            await labs.start(machine)
            progress.done(machine.name, f"{machine.address}, log at {machine.setup.place.log}")
    except labs.LabError as error:
        raise Exit(FAILED, f"error: {error}") from error
    kubeconfig.write(str(asked.kubeconfig), _kubeconfig(asked))
    session.config_path = str(asked.kubeconfig)
    progress.done("nodes", await _ready(session, asked))
    progress.done("dns", await _named(session, asked))
    session.say(f"\nThe lab is up. Try:\n  export KUBECONFIG={asked.kubeconfig}")
    session.say("  kcore get nodes -o wide\n  kcore apply -f examples/web.yaml")
    return 0


@lab.command()
@_options
@click.pass_obj
async def down(session: Session, name: str, root: Path) -> int:
    """Take the lab away, data included. Repeating it does no harm.

    \b
    kcore lab down
    """
    try:
        found = labs.known(root.absolute(), name)
        removed = [] if found is None else await labs.remove(found)
    except labs.LabError as error:
        raise Exit(FAILED, f"error: {error}") from error
    for thing in removed:
        session.say(f"removed {thing}")
    if not removed:
        session.say("nothing to remove")
    return 0


def _kubeconfig(asked: labs.Lab) -> dict[str, Any]:
    server = labs.machines(asked)[0]
    where = server.setup.place
    endpoint = {"grpc": f"{server.address}:{server.setup.port}", "unix": str(where.socket)}
    cluster = {
        "server": f"https://{server.address}:{server.setup.port + 1}",
        "certificate-authority": str(where.ca),
        "extensions": [{"name": kubeconfig.EXTENSION, "extension": endpoint}],
    }
    context = {"cluster": asked.name, "user": f"{asked.name}-admin", "namespace": "default"}
    user = {"tokenFile": str(where.admin_token)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": asked.name, "cluster": cluster}],
        "contexts": [{"name": asked.name, "context": context}],
        "users": [{"name": f"{asked.name}-admin", "user": user}],
        "current-context": asked.name,
    }


async def _named(session: Session, asked: labs.Lab) -> str:
    """Brings CoreDNS to the first node, and waits until it serves."""
    setup = labs.machines(asked)[1].setup
    if not setup.dns:
        return "there is no CoreDNS: names of services are not answered (make coredns)"
    await add_ons(session, setup)
    kind = deployment_pb2.Deployment
    ref = pb.Ref(kind=kind.DESCRIPTOR.full_name, namespace="kube-system", name="coredns")
    deadline = session.clock.monotonic() + READY_SECONDS
    while session.clock.monotonic() < deadline:
        answer = await (await session.api()).get(pb.GetRequest(ref=ref))
        if kind.FromString(answer.object).status.available_replicas:
            return f"names are answered at {setup.dns}"
        await session.clock.sleep(AGAIN_SECONDS)
    raise Exit(NOT_READY, f"error: CoreDNS is not available after {READY_SECONDS:.0f} s")


async def _ready(session: Session, asked: labs.Lab) -> str:
    """Waits until every node is Ready."""
    deadline = session.clock.monotonic() + READY_SECONDS
    wanted = {machine.name for machine in labs.machines(asked)[1:]}
    said = "no node has registered"
    request = pb.ListRequest(selection=pb.Selection(kind=node_pb2.Node.DESCRIPTOR.full_name))
    while session.clock.monotonic() < deadline:
        try:
            answer = await (await session.api()).list(request)
            nodes = [node_pb2.Node.FromString(item) for item in answer.items]
            ready = {
                node.metadata.name
                for node in nodes
                if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
            }
            if wanted <= ready:
                return f"{len(wanted)} Ready"
            said = f"not ready: {', '.join(sorted(wanted - ready))}"
        except (ApiError, kubeconfig.Unusable) as error:
            said = str(error)
        await session.clock.sleep(AGAIN_SECONDS)
    raise Exit(NOT_READY, f"error: after {READY_SECONDS:.0f} s: {said}; see {asked.root}")
