"""`kcore patch`: some fields of an object changed, as a JSON patch says."""

import json
from collections.abc import Sequence
from typing import Final

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import files, objects, options, output, targets
from kcore.cli.report import Report
from kcore.cli.root import code_of
from kcore.cli.session import Session
from kcore.client import document
from kcore.client.kinds import Kind
from kcore.client.problem import Refused
from kcore.wire.errors import ApiError, Reason, Violation

# By kubectl's names: the field of pb.Patch, and what the patch is.
_TYPES: Final = {"strategic": "strategic", "merge": "json_merge", "json": "json"}


@click.command()
@click.argument("words", nargs=-1, metavar="KIND NAME | KIND/NAME")
@options.filenames
@options.namespace
@options.dry_run
@options.output
@options.manager
@options.subresource
@click.option("-p", "--patch", "patches", multiple=True, help="The patch, in JSON or YAML.")
@click.option("--patch-file", "paths", multiple=True, help="A file with the patch.")
@click.option("--type", "type_", type=click.Choice(list(_TYPES)), default="strategic",
              show_default=True, help="Of Kubernetes, RFC 7386, or RFC 6902.")  # fmt: skip
@click.pass_obj
async def patch(
    session: Session,
    words: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    form: str,
    manager: str,
    subresource: str,
    patches: Sequence[str],
    paths: Sequence[str],
    type_: str,
) -> int:
    """Change some fields of an object.

    \b
    kcore patch deploy web -p '{"spec": {"replicas": 3}}'
    kcore patch deploy web -p 'spec: {template: {spec: {containers: [{name: nginx, image: b}]}}}'
    kcore patch cm settings --type=merge -p '{"data": {"old": null}}'
    kcore patch cm settings --type=json -p '[{"op": "replace", "path": "/data/a", "value": "b"}]'
    """
    form = output.check(form)
    if len(patches) + len(paths) != 1:
        raise click.UsageError("say how: with one --patch or one --patch-file")
    said = (
        _document(patches[0], "--patch") if patches else _document(files.text(paths[0]), paths[0])
    )
    wanted = list if type_ == "json" else dict
    if not isinstance(said.plain, wanted):
        what = "a list of operations" if type_ == "json" else "an object"
        raise click.UsageError(f"a patch of type {type_} is {what}")
    found = await targets.find(session, words, filenames=filenames, recursive=recursive)
    code = 0
    report = Report(session, form, dry_run)
    for kind, message in found:
        operation = pb.Operation(ref=objects.ref(kind, message), subresource=subresource)
        setattr(operation.patch, _TYPES[type_], json.dumps(said.plain))
        try:
            # Only the server knows what a patch leaves: a dry run here is one there.
            result = await objects.change(
                session, operation, dry_run=dry_run != "none", manager=manager
            )
        except ApiError as error:
            if error.reason is not Reason.INVALID:
                raise
            code = max(code, _complain(session, said, kind, message, error))
            continue
        report.add(
            kind,
            kind.parse(result.object),
            "patched" if result.changed else "patched (no change)",
        )
    report.end(one=len(found) == 1)
    return code


def _document(text: str, name: str) -> document.Document:
    documents = document.read(text, name)
    wrong = [entry for one in documents for entry in one.problems]
    if wrong:
        raise Refused(
            [f"{name}:{place.line}:{place.column}: {problem}\n" + document.excerpt(one, place)
             for one in documents for problem, place in one.problems]
        )  # fmt: skip
    if len(documents) != 1:
        raise click.UsageError(f"{name}: expected one patch")
    return documents[0]


def _complain(
    session: Session,
    said: document.Document,
    kind: Kind,
    message: Message,
    error: ApiError,
) -> int:
    """Says what the server found wrong, in the patch where it is about the patch."""
    name = output.name(kind, message)
    if not error.violations:
        session.say(f"error: {name}: {error.message}")
    for violation in error.violations:
        place = _place(said, violation)
        if place is None:
            session.say(f"error: {name}: {violation}")
            continue
        head = f"{said.name}:{place.line}:{place.column}: {violation}"
        session.say(f"{head}\n{document.excerpt(said, place)}")
    return code_of(error)


def _place(said: document.Document, violation: Violation) -> document.Place | None:
    """Where the patch says what is wrong; None where it does not, or another list's element."""
    if isinstance(said.plain, list):
        path = said.path(violation.path.removeprefix("patch"))
        return said.place(path[:1]) if violation.path.startswith("patch[") and path else None
    if "[" in violation.path:
        return None
    path = said.path(violation.path)
    if ".".join(map(str, path)) != violation.path:
        return None
    return said.place(path, at_key=violation.message.startswith("unknown field"))
