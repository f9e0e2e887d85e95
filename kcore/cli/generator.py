"""Generators: commands that make an object of a few words, as a plain value."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import options, output, submit
from kcore.cli.report import Report
from kcore.cli.session import Session
from kcore.client import codec
from kcore.client.document import Document
from kcore.client.manifest import Manifest


async def create(
    session: Session,
    manifests: Sequence[Manifest],
    dry_run: str,
    form: str,
    *,
    done: str = "created",
) -> int:
    """Makes them, and says so; the exit code."""

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
            report.add(outcome.manifest.kind, outcome.message, done)
    report.end()
    return code


def _complain(session: Session, outcome: submit.Outcome) -> int:
    if outcome.manifest.document.name:
        return submit.complain(session, outcome)
    assert outcome.error is not None
    raise outcome.error


def generator(function: Any) -> Any:
    """What all generators share: options, and the object made of what the function returns."""

    @functools.wraps(function)
    async def run(session: Session, dry_run: str, form: str, **given: Any) -> int:
        form = output.check(form)
        if inspect.iscoroutinefunction(function):
            plain = await function(session, **given)
        else:
            plain = function(**given)
        catalogue = await session.kinds()
        kind = catalogue.of_type(plain["apiVersion"], plain["kind"])
        if kind.namespaced:
            plain["metadata"]["namespace"] = session.namespace
        message = codec.from_plain(kind.descriptor, plain)
        one = Manifest(kind, message, Document("", [], plain))
        return await create(session, [one], dry_run, form)

    command: Any = run
    passed: Any = click.pass_obj(command)
    return options.namespace(options.dry_run(options.output(passed)))
