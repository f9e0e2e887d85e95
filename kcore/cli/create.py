"""`kcore create`: new objects, from manifests or from a few words."""

import os
from collections.abc import Sequence
from typing import Any

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import files as files_
from kcore.cli import objects, options, output, rollouts, subject, submit
from kcore.cli.report import Report
from kcore.cli.session import Session
from kcore.client import codec
from kcore.client.document import Document
from kcore.client.manifest import Manifest


@click.group(invoke_without_command=True)
@options.filenames
@options.namespace
@options.dry_run
@options.output
@click.pass_context
def create(
    context: click.Context, filenames: tuple[str, ...], recursive: bool, dry_run: str, form: str
) -> Any:
    """Make new objects.

    \b
    kcore create -f pod.yaml
    kcore create configmap settings --from-literal=color=blue
    """
    if context.invoked_subcommand is None:
        return _create_files(context.ensure_object(Session), filenames, recursive, dry_run, form)
    if filenames:
        raise click.UsageError("-f and a kind don't go together")
    return None


async def _create_files(
    session: Session, filenames: tuple[str, ...], recursive: bool, dry_run: str, form: str
) -> int:
    form = output.check(form)
    manifests = await submit.load(session, filenames, recursive, named=False)
    return await _create(session, manifests, dry_run, form)


async def _create(session: Session, manifests: Sequence[Manifest], dry_run: str, form: str) -> int:
    def operation(one: Manifest) -> pb.Operation:
        made = submit.operation_on(one)
        made.create = one.message.SerializeToString(deterministic=True)
        return made

    if dry_run == "client":
        outcomes = [submit.Outcome(one, one.message, True) for one in manifests]
    else:
        outcomes = await submit.submit(session, manifests, operation, dry_run=dry_run == "server")
    code = 0
    report = Report(session, form, dry_run)
    for outcome in outcomes:
        if outcome.message is None:
            code = max(code, _complain(session, outcome))
        else:
            report.add(outcome.manifest.kind, outcome.message, "created")
    report.end()
    return code


def _complain(session: Session, outcome: submit.Outcome) -> int:
    if outcome.manifest.document.name:
        return submit.complain(session, outcome)
    assert outcome.error is not None
    raise outcome.error


def _generator(function: Any) -> Any:
    """What all generators share: options, and the object made of what the function returns.

    One that has to ask the server first is a coroutine, and takes the session.
    """
    import functools
    import inspect

    asks = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    async def run(session: Session, dry_run: str, form: str, **given: Any) -> int:
        form = output.check(form)
        plain = await function(session, **given) if asks else function(**given)
        catalogue = await session.kinds()
        kind = catalogue.of_type(plain["apiVersion"], plain["kind"])
        if kind.namespaced:
            plain["metadata"]["namespace"] = session.namespace
        message = codec.from_plain(kind.descriptor, plain)
        one = Manifest(kind, message, Document("", [], plain))
        return await _create(session, [one], dry_run, form)

    command: Any = run
    passed: Any = click.pass_obj(command)
    return options.namespace(options.dry_run(options.output(passed)))


@create.command(name="namespace")
@click.argument("name")
@_generator
def namespace(name: str) -> dict[str, Any]:
    """Make a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


@create.command(name="serviceaccount")
@click.argument("name")
@_generator
def serviceaccount(name: str) -> dict[str, Any]:
    """Make a service account."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


@create.command(name="configmap")
@click.argument("name")
@click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE")
@click.option("--from-file", "files", multiple=True, metavar="[KEY=]FILE|DIRECTORY")
@click.option("--from-env-file", "env_files", multiple=True, metavar="FILE")
@_generator
def configmap(
    name: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> dict[str, Any]:
    """Make a config map of literals and files."""
    text: dict[str, Any] = {}
    binary: dict[str, Any] = {}
    for key, data in _entries(literals, files, env_files):
        if key in text or key in binary:
            raise click.UsageError(f'the key "{key}" is given twice')
        try:
            text[key] = data.decode()
        except UnicodeDecodeError:
            binary[key] = _base64(data)
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    return made | ({"data": text} if text else {}) | ({"binaryData": binary} if binary else {})


@create.group()
def secret() -> None:
    """Make a secret."""


@secret.command(name="generic")
@click.argument("name")
@click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE")
@click.option("--from-file", "files", multiple=True, metavar="[KEY=]FILE|DIRECTORY")
@click.option("--from-env-file", "env_files", multiple=True, metavar="FILE")
@click.option("--type", "type_", default="", help="The secret's type.")
@_generator
def generic(
    name: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str], type_: str
) -> dict[str, Any]:
    """Make a secret of literals and files."""
    data: dict[str, Any] = {}
    for key, value in _entries(literals, files, env_files):
        if key in data:
            raise click.UsageError(f'the key "{key}" is given twice')
        data[key] = _base64(value)
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return made | ({"data": data} if data else {}) | ({"type": type_} if type_ else {})


@create.command(name="schema")
@click.argument("name")
@click.option("--from-descriptors", "file", required=True, metavar="FILE")
@_generator
def schema(name: str, file: str) -> dict[str, Any]:
    """Make kinds of a FileDescriptorSet, as protoc and buf write it.

    \b
    buf build -o widget.binpb
    kcore create schema acme --from-descriptors widget.binpb
    """
    return {
        "apiVersion": "kcore.dev/v1",
        "kind": "Schema",
        "metadata": {"name": name},
        "spec": {"descriptors": _base64(files_.read(file))},
    }


@create.command(name="deployment")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", "images", multiple=True, required=True, help="May be repeated.")
@click.option("-r", "--replicas", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Port that it listens on.")
@_generator
def deployment(
    name: str, command: Sequence[str], images: Sequence[str], replicas: int, port: int | None
) -> dict[str, Any]:
    """Make a deployment of an image: kcore create deployment web --image=nginx -- cmd arg."""
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


@create.command(name="job")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", default="", help="What to run.")
@click.option("--from", "source", default="", metavar="cronjob/NAME", help="Whose job to run now.")
@_generator
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


@create.command(name="cronjob")
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
@_generator
def cronjob(
    name: str, command: Sequence[str], image: str, schedule: str, restart: str
) -> dict[str, Any]:
    """Make a cron job: kcore create cronjob tick --image=x --schedule=@hourly -- date."""
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


def _entries(
    literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for literal in literals:
        key, equals, value = literal.partition("=")
        if not equals or not key:
            raise click.UsageError(f'"{literal}" is not of the form key=value')
        found.append((key, value.encode()))
    for entry in files:
        key, equals, path = entry.rpartition("=")
        if not equals and os.path.isdir(path):
            names = sorted(n for n in os.listdir(path) if os.path.isfile(os.path.join(path, n)))
            found += [(name, files_.read(os.path.join(path, name))) for name in names]
        else:
            found.append((key or os.path.basename(path), files_.read(path)))
    for path in env_files:
        for number, line in enumerate(files_.text(path).splitlines(), 1):
            bare = line.lstrip()
            if not bare or bare.startswith("#"):
                continue
            key, equals, value = bare.partition("=")
            if not equals or not key:
                raise click.UsageError(f"{path}:{number}: is not of the form key=value")
            found.append((key, value.encode()))
    return found


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()
