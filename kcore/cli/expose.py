"""`kcore expose`: a service for the pods of an object that has some."""

from typing import Any

import click
from google.protobuf.message import Message

from kcore.cli import change, generator, objects, options, output, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import codec
from kcore.client.document import Document
from kcore.client.kinds import Kind
from kcore.client.manifest import Manifest


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME | KIND/NAME")
@options.namespace
@options.selector
@options.dry_run
@options.output
@click.option("--name", default="", help="Of the service; else the object's.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the service; else the pods'.")
@click.option("--target-port", default="", help="Of the pods, a number or a name.")
@click.option("--protocol", type=click.Choice(["TCP", "UDP", "SCTP"]), default="TCP",
              show_default=True, help="What is spoken on the port.")  # fmt: skip
@click.option("--type", "type_", type=click.Choice(["ClusterIP", "NodePort"]), default="ClusterIP",
              show_default=True, help="From where it can be reached.")  # fmt: skip
@click.option("--cluster-ip", default="", help="Its address; None: it has none.")
@click.pass_obj
async def expose(
    session: Session,
    words: tuple[str, ...],
    labels: str,
    dry_run: str,
    form: str,
    name: str,
    port: int | None,
    target_port: str,
    protocol: str,
    type_: str,
    cluster_ip: str,
) -> int:
    """Make a service for the pods of an object.

    \b
    kcore expose deploy/web --port=80 --target-port=8080
    kcore expose pod web-0 --port=80 --type=NodePort
    """
    form = output.check(form)
    catalogue = await session.kinds()
    found = []
    for asked in subject.parse(words, catalogue):
        if not asked.name:
            raise click.UsageError(f"say which of the {asked.kind.options.plural}")
        message = await objects.get(session, asked.kind, session.namespace, asked.name)
        plain = change.plain(message)
        ports = [port] if port is not None else _ports(plain)
        if not ports:
            raise Exit(FAILED, f"error: {asked} says no port; say it with --port")
        spec: dict[str, Any] = {
            "type": type_,
            "selector": _selector(asked.kind, message, plain, labels),
            "ports": [
                {
                    "protocol": protocol,
                    "port": one,
                    "targetPort": int(target_port) if target_port.isdecimal() else target_port,
                }
                if target_port
                else {"protocol": protocol, "port": one, "targetPort": one}
                for one in ports
            ],
        }
        for index, one in enumerate(spec["ports"]):
            if len(ports) > 1:
                one["name"] = f"port-{index + 1}"
        if cluster_ip:
            spec["clusterIP"] = cluster_ip
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name or asked.name,
                "namespace": session.namespace,
                "labels": plain["metadata"].get("labels", {}),
            },
            "spec": spec,
        }
        kind = catalogue.of_type("v1", "Service")
        made = codec.from_plain(kind.descriptor, service)
        found.append(Manifest(kind, made, Document("", [], service)))
    return await generator.create(session, found, dry_run, form, done="exposed")


def _selector(kind: Kind, message: Message, plain: dict[str, Any], labels: str) -> dict[str, str]:
    """The labels that the object's pods have."""
    if labels:
        pairs = [part.partition("=") for part in labels.split(",")]
        if not all(key and equals for key, equals, _ in pairs):
            raise click.UsageError("a service selects by app=web,tier=front only")
        return {key: value.removeprefix("=") for key, _, value in pairs}
    spec = plain.get("spec", {})
    selector = spec.get("selector")
    if isinstance(selector, dict):
        if selector.get("matchExpressions"):
            said = output.name(kind, message)
            raise Exit(FAILED, f"error: {said} selects by more than labels; say -l")
        found = selector.get("matchLabels", selector)
        if found:
            return dict(found)
    found = plain["metadata"].get("labels")
    if "containers" in spec and found:
        return dict(found)
    raise Exit(FAILED, f"error: {output.name(kind, message)} has no labels to select by; say -l")


def _ports(plain: dict[str, Any]) -> list[int]:
    """The ports that its containers say, or the service's own."""
    spec = plain.get("spec", {})
    spec = spec.get("template", {}).get("spec", spec)
    if "containers" in spec:
        return [p["containerPort"] for c in spec["containers"] for p in c.get("ports", [])]
    return [p["port"] for p in spec.get("ports", [])]
