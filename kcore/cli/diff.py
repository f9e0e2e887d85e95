"""`kcore diff`: what applying manifests would change, asked of the server, as a unified diff.

Exit codes: 0 no difference, 1 differences, more: something went wrong. What is sensitive is
covered, so that only whether it changes is seen. $KUBECTL_EXTERNAL_DIFF names another program.
"""

import asyncio
import difflib
import os
import shlex
import tempfile
from dataclasses import dataclass
from typing import Any, Final

import click
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from kcore.cli import color, files, objects, options, output, submit
from kcore.cli.about import fields_of, inner_of
from kcore.cli.root import failed
from kcore.cli.session import FAILED, Exit, Session, harmless
from kcore.client import yaml_writer
from kcore.client.manifest import Manifest
from kcore.client.options import field as field_options
from kcore.wire.errors import Reason

SAME: Final = 0
DIFFERS: Final = 1
# Least code of an error: 1 says that something differs.
ERROR: Final = 2

_EXTERNAL: Final = "KUBECTL_EXTERNAL_DIFF"
_COVERED: Final = "***"


@dataclass(frozen=True, slots=True)
class Pair:
    """An object as it is and as it would be, as YAML; empty where it is not there."""

    name: str
    live: str
    merged: str


@click.command()
@options.filenames
@options.namespace
@options.selector
@options.manager
@click.option("--server-side", is_flag=True, help="Leave fields alone that others own.")
@click.option("--force-conflicts", is_flag=True, help="With --server-side: take them.")
@click.option("--show-managed-fields", is_flag=True, help="Also who sets which field.")
@click.pass_obj
async def diff(
    session: Session,
    filenames: tuple[str, ...],
    recursive: bool,
    labels: str,
    manager: str,
    server_side: bool,
    force_conflicts: bool,
    show_managed_fields: bool,
) -> int:
    """Show what applying manifests would change.

    The exit code is 0 if nothing would, 1 if something would, more if it can't be told.

    \b
    kcore diff -f web.yaml
    kcore diff -R -f manifests/
    """
    try:
        manifests = submit.selected(
            await submit.load(session, filenames, recursive, named=True), labels
        )
        before = await submit.before(session, manifests)
        force = force_conflicts or not server_side
        outcomes = await submit.submit(
            session,
            manifests,
            lambda one: submit.apply_operation(one, force),
            dry_run=True,
            manager=manager,
        )
        code = 0
        pairs = []
        made = {output.name(o.manifest.kind, o.message) for o in outcomes if o.message is not None}
        for outcome, old in zip(outcomes, before, strict=True):
            if _waits(outcome, made):
                pairs.append(
                    _pair(outcome.manifest, None, outcome.manifest.message, show_managed_fields)
                )
            elif outcome.message is None:
                code = max(ERROR, submit.complain(session, outcome))
            else:
                pairs.append(_pair(outcome.manifest, old, outcome.message, show_managed_fields))
        pairs = [pair for pair in pairs if pair.live != pair.merged]
        if session.environ.get(_EXTERNAL):
            return max(code, await _external(session, pairs))
        _show(session, pairs)
        return max(code, DIFFERS if pairs else SAME)
    except Exception as error:
        raise Exit(max(ERROR, failed(error, session))) from None


def _waits(outcome: submit.Outcome, made: set[str]) -> bool:
    """Whether it is refused only because the namespace that is made with it is not there yet."""
    error = outcome.error
    namespace = objects.metadata(outcome.manifest.message).namespace
    return (
        error is not None and error.reason is Reason.NOT_FOUND and f"namespace/{namespace}" in made
    )


def _pair(one: Manifest, old: Message | None, new: Message, managed_fields: bool) -> Pair:
    kind = one.kind
    live = None if old is None else output.plain(old, managed_fields=managed_fields)
    merged = output.plain(new, managed_fields=managed_fields)
    for shown in (live, merged):
        if shown is not None:
            # These tell only of the writing.
            for name in ("resourceVersion", "generation"):
                shown.get("metadata", {}).pop(name, None)
    if live is None:
        for name in ("uid", "creationTimestamp"):
            merged["metadata"].pop(name, None)
    _cover(kind.descriptor, live, merged)
    metadata = objects.metadata(new)
    parts = (kind.group, kind.version, kind.name, metadata.namespace, metadata.name)
    return Pair(
        ".".join(part for part in parts if part),
        "" if live is None else yaml_writer.write(live),
        yaml_writer.write(merged),
    )


def _cover(descriptor: Descriptor, live: Any, merged: Any) -> None:
    """Covers what is sensitive in both; where they differ, so that it is seen."""
    for name, field in fields_of(descriptor).items():
        said = field_options(field)
        sides = [s for s in (live, merged) if isinstance(s, dict) and s.get(name) is not None]
        if said is not None and said.sensitive:
            was, becomes = (s.get(name) if isinstance(s, dict) else None for s in (live, merged))
            if isinstance(was, dict) or isinstance(becomes, dict):
                _cover_keys(was, becomes)
            else:
                for side, word in ((live, "before"), (merged, "after")):
                    if side in sides:
                        side[name] = _COVERED if was == becomes else f"{_COVERED} ({word})"
            continue
        inner = inner_of(field)
        if inner is None or not sides:
            continue
        was, becomes = (s.get(name) if isinstance(s, dict) else None for s in (live, merged))
        for one, other in _pairs(was, becomes, field.message_type is not inner):
            _cover(inner, one, other)


def _pairs(was: Any, becomes: Any, is_map: bool) -> list[tuple[Any, Any]]:
    """The messages of a field on both sides: a list's by index, a map's by key."""
    if isinstance(was, list) or isinstance(becomes, list):
        one, other = was or [], becomes or []
        most = max(len(one), len(other))
        return [(_at(one, index), _at(other, index)) for index in range(most)]
    if is_map:
        keys = sorted({*(was or {}), *(becomes or {})})
        return [((was or {}).get(key), (becomes or {}).get(key)) for key in keys]
    return [(was, becomes)]


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _cover_keys(was: Any, becomes: Any) -> None:
    one, other = was or {}, becomes or {}
    for key in {*one, *other}:
        changes = key in one and key in other and one[key] != other[key]
        for side, word in ((one, "before"), (other, "after")):
            if key in side:
                side[key] = f"{_COVERED} ({word})" if changes else _COVERED


def _show(session: Session, pairs: list[Pair]) -> None:
    colored = session.colored(session.stdout)
    for pair in pairs:
        lines = difflib.unified_diff(
            pair.live.splitlines(),
            pair.merged.splitlines(),
            f"live/{pair.name}",
            f"merged/{pair.name}",
            lineterm="",
        )
        for line in lines:
            code = _color(line) if colored else ""
            session.out(color.paint(harmless(line), code) if code else harmless(line))


def _color(line: str) -> str:
    if line.startswith(("---", "+++")):
        return color.BOLD
    return {"-": color.RED, "+": color.GREEN, "@": color.CYAN}.get(line[:1], "")


async def _external(session: Session, pairs: list[Pair]) -> int:
    """Has another program show the differences."""
    command = shlex.split(session.environ[_EXTERNAL])
    with tempfile.TemporaryDirectory(prefix="kcore-diff-") as directory:
        sides = [os.path.join(directory, name) for name in ("live", "merged")]
        for side in sides:
            os.mkdir(side, 0o700)
        for pair in pairs:
            for side, text in zip(sides, (pair.live, pair.merged), strict=True):
                if text:
                    files.write(os.path.join(side, pair.name), text)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, *sides, stdout=asyncio.subprocess.PIPE
            )
        except OSError as wrong:
            said = (wrong.strerror or str(wrong)).lower()
            raise Exit(FAILED, f"error: {_EXTERNAL}: {command[0]}: {said}") from None
        shown, _ = await process.communicate()
        session.write(shown)
        assert process.returncode is not None
        return process.returncode
