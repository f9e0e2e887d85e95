"""`kcore edit`: objects changed in the user's editor.

The editor is opened on the objects as YAML or JSON. What is wrong with what it leaves stands as
comments on top when it is opened again; a copy is kept of what can't be saved. Only what was
changed is sent (change.py), so what others change meanwhile stays.
"""

import asyncio
import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
from google.protobuf.message import Message

from kcore.cli import change, files, objects, options, output, targets
from kcore.cli.report import Report
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import manifest
from kcore.client.kinds import Kind
from kcore.client.manifest import Manifest
from kcore.client.problem import Refused
from kcore.wire.errors import ApiError

_HEAD: Final = (
    "Please edit the object below. Lines beginning with a '#' will be ignored,",
    "and an empty file will abort the edit. If an error occurs while saving this file will be",
    "reopened with the relevant failures.",
    "",
)
# Line, column, what is wrong; line 0: with no place.
Fault = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class _Target:
    kind: Kind
    message: Message


@click.command()
@click.argument("words", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...")
@options.filenames
@options.namespace
@options.selector
@options.manager
@options.subresource
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), default="yaml",
              show_default=True, help="What to edit it as.")  # fmt: skip
@click.pass_obj
async def edit(
    session: Session,
    words: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    labels: str,
    manager: str,
    subresource: str,
    form: str,
) -> int:
    """Change objects in an editor: $KUBE_EDITOR, $EDITOR, or vi.

    \b
    kcore edit deploy/web
    KUBE_EDITOR=nano kcore edit cm settings
    """
    editor = _editor(session)
    found = await targets.find(
        session,
        words,
        filenames=filenames,
        recursive=recursive,
        labels=labels,
        all_by_kind=True,
    )
    wanted = [_Target(kind, message) for kind, message in found]
    if not wanted:
        return 0
    shown = [change.plain(target.message) for target in wanted]
    body = output.text(shown[0] if len(shown) == 1 else output.as_list(shown), form) + "\n"
    handle, path = tempfile.mkstemp(prefix="kcore-edit-", suffix=f".{form}")
    os.close(handle)
    keep = False
    try:
        keep = await _edit(session, editor, path, body, wanted, manager, subresource)
    except BaseException:
        keep = True
        raise
    finally:
        if keep:
            session.say(f'A copy of your changes has been stored to "{path}"')
        else:
            os.unlink(path)
    return FAILED if keep else 0


async def _edit(
    session: Session,
    editor: Sequence[str],
    path: str,
    body: str,
    wanted: list[_Target],
    manager: str,
    subresource: str,
) -> bool:
    """Until all is saved or given up. Whether a copy is needed."""
    report = Report(session, "")
    faults: list[Fault] = []
    saved: set[tuple[str, str, str]] = set()
    while True:
        files.write(path, _head(faults) + body)
        await _open(editor, path)
        edited = _bare(files.text(path))
        if edited == _bare(body):
            if not faults:
                session.say("Edit cancelled, no changes made.")
                return False
            session.say("error: Edit cancelled, no valid changes were saved.")
            return True
        if not edited.strip():
            session.say("Edit cancelled, saved file was empty.")
            return False
        body = edited
        try:
            after = _read(body, path, wanted, await session.kinds())
        except Refused as refused:
            faults = list(refused.short)
            continue
        faults = []
        for target, one in zip(wanted, after, strict=True):
            key = _key(target.kind, target.message)
            if key in saved:
                continue
            try:
                message, changed = await change.commit(
                    session,
                    target.kind,
                    target.message,
                    _plain(one),
                    manager=manager,
                    subresource=subresource,
                )
            except ApiError as error:
                if not error.violations:
                    raise
                faults += _faults(one, error)
            except change.Stale as stale:
                name = output.name(target.kind, target.message)
                raise Exit(FAILED, f"error: {name}: {stale}; edit it again") from None
            else:
                saved.add(key)
                if changed:
                    report.add(target.kind, message, "edited")
        if not faults:
            return False


def _editor(session: Session) -> list[str]:
    said = session.environ.get("KUBE_EDITOR") or session.environ.get("EDITOR")
    if said is None:
        if not session.stdin.isatty():
            raise Exit(FAILED, "error: there is no terminal for vi here; set EDITOR")
        said = "vi"
    return shlex.split(said)


async def _open(editor: Sequence[str], path: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(*editor, path)
    except OSError as wrong:
        said = (wrong.strerror or str(wrong)).lower()
        raise Exit(FAILED, f"error: the editor {editor[0]}: {said}; set EDITOR") from None
    code = await process.wait()
    if code:
        raise Exit(FAILED, f"error: the editor {editor[0]} ended with {code}")


def _head(faults: Sequence[Fault]) -> str:
    """Comments on top; places are counted in the file with these comments."""
    shift = len(_HEAD) + (len(faults) + 1 if faults else 0)
    said = list(_HEAD)
    if faults:
        said += [
            f"* {f'{line + shift}:{column}: ' if line else ''}{' '.join(text.split())}"
            for line, column, text in faults
        ]
        said.append("")
    return "".join(f"# {line}".rstrip() + "\n" for line in said)


def _bare(text: str) -> str:
    """The text without comments."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _read(body: str, path: str, wanted: list[_Target], catalogue: Any) -> list[Manifest]:
    """The objects of the text: those that were asked for, in their order."""
    found = manifest.read(body, path, catalogue)
    by_name = {_key(one.kind, one.message): one for one in found}
    keys = [_key(target.kind, target.message) for target in wanted]
    strange = [key for key in by_name if key not in keys] or [k for k in keys if k not in by_name]
    if strange or len(found) != len(wanted):
        known = ", ".join(output.name(t.kind, t.message) for t in wanted)
        said = f"kind, name and namespace may not change: expected {known}"
        raise Refused([said], [(0, 0, said)])
    return [by_name[key] for key in keys]


def _key(kind: Kind, message: Message) -> tuple[str, str, str]:
    metadata = objects.metadata(message)
    return kind.full_name, metadata.namespace, metadata.name


def _plain(one: Manifest) -> dict[str, Any]:
    """The object as the server would show it: `1000m` is what was written, `{}` nothing."""
    return change.plain(one.message)


def _faults(one: Manifest, error: ApiError) -> list[Fault]:
    found = []
    for violation in error.violations:
        place = one.place(violation)
        found.append((place.line, place.column, str(violation)))
    return found
