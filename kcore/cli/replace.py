"""`kcore replace`: objects become what manifests say, whole."""

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import delete, objects, options, output, submit
from kcore.cli.report import Report
from kcore.cli.session import Session
from kcore.client.manifest import Manifest


@click.command()
@options.filenames
@options.namespace
@options.dry_run
@options.output
@options.manager
@options.subresource
@click.option("--force", is_flag=True, help="Delete them, and make them anew.")
@click.option("--grace-period", type=click.IntRange(min=-1), default=-1,
              help="With --force: seconds to end in; -1: its own.")  # fmt: skip
@click.option("--timeout", type=options.SECONDS, default=0.0,
              help="With --force: how long to wait for the deletion; 0: for ever.")  # fmt: skip
@click.pass_obj
async def replace(
    session: Session,
    filenames: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    form: str,
    manager: str,
    subresource: str,
    force: bool,
    grace_period: int,
    timeout: float,
) -> int:
    """Replace objects by those of manifests.

    What a manifest leaves out goes. With metadata.resourceVersion in it an object is only replaced
    while it is still that one.

    \b
    kcore replace -f web.yaml
    kcore replace --force -f web.yaml
    """
    form = output.check(form)
    if force and subresource:
        raise click.UsageError("--force makes whole objects: it goes without --subresource")
    manifests = await submit.load(session, filenames, recursive, named=True)

    def operation(one: Manifest) -> pb.Operation:
        made = submit.operation_on(one)
        if force:
            # What it was is gone.
            for name in ("resource_version", "uid"):
                objects.metadata(one.message).ClearField(name)
            made.create = one.message.SerializeToString(deterministic=True)
        else:
            made.subresource = subresource
            made.update = one.message.SerializeToString(deterministic=True)
        return made

    if force and dry_run == "none":
        await delete.gone(session, manifests, grace_period, timeout)
    if dry_run == "client" or (force and dry_run == "server"):
        outcomes = [submit.Outcome(one, one.message, True) for one in manifests]
    else:
        outcomes = await submit.submit(
            session, manifests, operation, dry_run=dry_run == "server", manager=manager
        )
    code = 0
    report = Report(session, form, dry_run)
    for outcome in outcomes:
        if outcome.message is None:
            code = max(code, submit.complain(session, outcome))
        else:
            report.add(outcome.manifest.kind, outcome.message, "replaced")
    report.end(one=len(manifests) == 1)
    return code
