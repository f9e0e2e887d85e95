"""`kcore create deployment`, `job`, `cronjob` and `service`: what runs, of a few words."""

from collections.abc import Sequence
from typing import Any

import click

from kcore.cli import objects, rollouts, subject
from kcore.cli.generator import generator
from kcore.cli.session import Session
from kcore.client import codec


@click.command(name="deployment")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", "images", multiple=True, required=True, help="May be repeated.")
@click.option("-r", "--replicas", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Port that it listens on.")
@generator
def deployment(
    name: str, command: Sequence[str], images: Sequence[str], replicas: int, port: int | None
) -> dict[str, Any]:
    """Make a deployment of an image.

    \b
    kcore create deployment shop --image=nginx:1.27 --replicas=2 --port=80
    kcore create deployment sleeper --image=busybox -- sleep 1d
    """
    if command and len(images) > 1:
        raise click.UsageError("a command goes with one image only")
    containers: list[dict[str, Any]] = []
    for image in images:
        base = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
        container: dict[str, Any] = {"name": base.replace("_", "-").lower(), "image": image}
        if command:
            container["command"] = list(command)
        if port is not None:
            container["ports"] = [{"containerPort": port}]
        containers.append(container)
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


@click.command(name="job")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", default="", help="What to run.")
@click.option("--from", "source", default="", metavar="cronjob/NAME", help="Whose job to run now.")
@generator
async def job(
    session: Session, name: str, command: Sequence[str], image: str, source: str
) -> dict[str, Any]:
    """Make a job of an image, or what a cron job would make next.

    \b
    kcore create job hello --image=kcore.local/busybox:1 -- echo hello
    kcore create job now --from=cronjob/nightly
    """
    if bool(image) == bool(source):
        raise click.UsageError("either --image or --from is needed")
    plain: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    if source:
        if command:
            raise click.UsageError("a command goes with --image only")
        found = await _template_of(session, source)
        template, metadata = found["spec"]["jobTemplate"], found["metadata"]
        given = template.get("metadata") or {}
        plain["metadata"] |= {
            "labels": given.get("labels") or {},
            "annotations": {
                **(given.get("annotations") or {}),
                "cronjob.kubernetes.io/instantiate": "manual",
            },
            "ownerReferences": [
                {
                    "apiVersion": found["apiVersion"],
                    "kind": found["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        }
        return plain | {"spec": template["spec"]}
    return plain | {"spec": _job_spec(name, image, command, "Never")}


@click.command(name="cronjob")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", required=True, help="What to run.")
@click.option("--schedule", required=True, help='When: "0 3 * * *", "@hourly".')
@click.option(
    "--restart",
    type=click.Choice(["OnFailure", "Never"]),
    default="OnFailure",
    show_default=True,
    help="What happens when it fails.",
)
@generator
def cronjob(
    name: str, command: Sequence[str], image: str, schedule: str, restart: str
) -> dict[str, Any]:
    """Make a cron job of an image.

    \b
    kcore create cronjob tick --image=busybox --schedule=@hourly -- date
    """
    spec = _job_spec(name, image, command, restart)
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": {"metadata": {"name": name}, "spec": spec}},
    }


def _job_spec(name: str, image: str, command: Sequence[str], restart: str) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "image": image}
    if command:
        container["command"] = list(command)
    return {"template": {"spec": {"containers": [container], "restartPolicy": restart}}}


async def _template_of(session: Session, source: str) -> dict[str, Any]:
    """The object that `--from` names, if its kind has a template of jobs."""
    (found, *more) = subject.parse((source,), await session.kinds())
    if more or not found.name or not rollouts.has(found.kind, "spec.job_template"):
        raise click.UsageError(f"--from={source}: name a cron job, such as cronjob/nightly")
    message = await objects.get(session, found.kind, session.namespace, found.name)
    return codec.to_plain(message)


@click.command(name="service")
@click.argument("type_", metavar="TYPE", type=click.Choice(["clusterip", "nodeport"]))
@click.argument("name")
@click.option("--tcp", "ports", multiple=True, metavar="PORT[:TARGET]", help="May be repeated.")
@click.option("--clusterip", "address", default="", help="Its address; None: it has none.")
@click.option("--node-port", type=click.IntRange(1, 65535), help="Of a nodeport: which.")
@generator
def service(
    type_: str, name: str, ports: Sequence[str], address: str, node_port: int | None
) -> dict[str, Any]:
    """Make a service for the pods with the label app=NAME.

    \b
    kcore create service clusterip web --tcp=80:8080
    """
    if not ports and address != "None":
        raise click.UsageError("say which ports: --tcp=80:8080")
    spec: dict[str, Any] = {
        "type": {"clusterip": "ClusterIP", "nodeport": "NodePort"}[type_],
        "selector": {"app": name},
        "ports": [_port(said) for said in ports],
    }
    if address:
        spec["clusterIP"] = address
    if node_port is not None:
        spec["ports"][0]["nodePort"] = node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }


def _port(said: str) -> dict[str, Any]:
    port, colon, target = said.partition(":")
    if not port.isdecimal() or (colon and not target):
        raise click.UsageError(f'"{said}" is not of the form PORT:TARGET')
    to: int | str = int(target) if target.isdecimal() else target
    return {
        "name": f"{port}-{target or port}",
        "protocol": "TCP",
        "port": int(port),
        "targetPort": to or int(port),
    }
