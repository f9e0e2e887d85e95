"""`kcore create`: new objects, from manifests or from a few words."""

import base64
from typing import Any, Final

import click

from kcore.cli import files, generator, options, output, roles, settings, submit, workloads
from kcore.cli.session import Session

# Other words for the kinds.
_ALIASES: Final = {
    "cm": "configmap",
    "cj": "cronjob",
    "deploy": "deployment",
    "ns": "namespace",
    "sa": "serviceaccount",
    "svc": "service",
}


class _Kinds(click.Group):
    """The kinds that can be made of a few words, by any of their names."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))


@click.group(cls=_Kinds, invoke_without_command=True)
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
    kcore create configmap colors --from-literal=sky=blue
    """
    if context.invoked_subcommand is None:
        return _create_files(context.ensure_object(Session), filenames, recursive, dry_run, form)
    if filenames or form or dry_run != "none":
        raise click.UsageError("-f, -o and --dry-run don't go together with a kind after them")
    return None


async def _create_files(
    session: Session, filenames: tuple[str, ...], recursive: bool, dry_run: str, form: str
) -> int:
    form = output.check(form)
    manifests = await submit.load(session, filenames, recursive, named=False)
    return await generator.create(session, manifests, dry_run, form)


@create.command(name="namespace")
@click.argument("name")
@generator.generator
def namespace(name: str) -> dict[str, Any]:
    """Make a namespace.

    \b
    kcore create namespace store
    """
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


@create.command(name="serviceaccount")
@click.argument("name")
@generator.generator
def serviceaccount(name: str) -> dict[str, Any]:
    """Make a service account.

    \b
    kcore create serviceaccount robot
    """
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


@create.command(name="schema")
@click.argument("name")
@click.option("--from-descriptors", "file", required=True, metavar="FILE")
@generator.generator
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
        "spec": {"descriptors": base64.b64encode(files.read(file)).decode()},
    }


for command in (
    settings.configmap,
    settings.secret,
    workloads.deployment,
    workloads.job,
    workloads.cronjob,
    workloads.service,
    roles.role,
    roles.clusterrole,
    roles.rolebinding,
    roles.clusterrolebinding,
    roles.token,
):
    create.add_command(command)
