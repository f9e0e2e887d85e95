"""`kcore version` and `cluster-info`: what is at both ends."""

from typing import Any

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

import kcore
from kcore.cli import objects, options, output
from kcore.cli.session import Session
from kcore.client import kinds


@click.command()
@click.option("--client", is_flag=True, help="Only the client's.")
@options.output
@click.pass_obj
async def version(session: Session, client: bool, form: str) -> int:
    """Show the versions of client and server.

    \b
    kcore version -o yaml
    """
    output.check(form, ("yaml", "json"))
    digest = kinds.built_in_digest()
    said: dict[str, Any] = {"clientVersion": {"gitVersion": f"v{kcore.__version__}"}}
    said["clientVersion"]["kinds"] = digest
    warning = ""
    if not client:
        api = await session.api()
        answer = await api.kinds(pb.KindsRequest(digest=digest))
        said["serverVersion"] = {
            "gitVersion": f"v{answer.version}",
            "kinds": answer.digest,
            "kindsRevision": answer.revision,
            "clusterId": answer.cluster_id,
            "epoch": answer.epoch,
        }
        warning = skew(kcore.__version__, answer.version)
    if form:
        session.out(output.text(said, form))
    else:
        session.out(f"Client Version: v{kcore.__version__}")
        if not client:
            session.out(f"Server Version: v{answer.version}")
            session.out(f"Cluster: {answer.cluster_id}, epoch {answer.epoch}")
    if warning:
        session.say(f"WARNING: {warning}")
    return 0


def skew(client: str, server: str) -> str:
    """What to say where two versions are too far from each other; else nothing."""
    ours, theirs = _minor(client), _minor(server)
    if ours is None or theirs is None:
        return f"version difference between client ({client}) and server ({server or 'unknown'})"
    if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1:
        return ""
    return (
        f"version difference between client ({ours[0]}.{ours[1]}) and server"
        f" ({theirs[0]}.{theirs[1]}) exceeds the supported minor version skew of +/-1"
    )


def _minor(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return int(parts[0]), int(parts[1])


@click.command(name="cluster-info")
@click.pass_obj
async def cluster_info(session: Session) -> int:
    """Show where the cluster is and what it has.

    \b
    kcore cluster-info
    """
    catalogue = await session.kinds()
    where = "this process"
    if session.given_api is None:
        target = session.target()
        where = target.grpc or f"unix:{target.unix}"
    session.out(f"kcore control plane is running at {where}")
    nodes = await objects.listing(session, catalogue.of_type("v1", "Node"), "")
    ready = sum(_is_ready(node) for node in nodes.items)
    session.out(f"{ready} of {len(nodes.items)} nodes are ready")
    services = [k for k in catalogue.kinds if (k.api_version, k.name) == ("v1", "Service")]
    for kind in services:
        dns: Any = await objects.find(session, kind, "kube-system", "kube-dns")
        if dns is not None:
            session.out(f"CoreDNS is running at {dns.spec.cluster_ip}")
    session.say("To look further, use `kcore get all -A` and `kcore events -A`.")
    return 0


def _is_ready(node: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
