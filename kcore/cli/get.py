"""`kcore get`: objects as tables of their kind's columns, as YAML, JSON, names; now or as they
change.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import click
from google.protobuf.message import Message

from kcore.cli import follow, objects, options, output, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.table import Table
from kcore.client.kinds import Kind
from kcore.wire.errors import ApiError, Reason


@click.command()
@click.argument("words", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...")
@options.namespace
@options.everywhere
@options.selector
@options.field_selector
@options.filenames
@click.option("-o", "--output", "form", default="", help="wide, name, yaml, json, jsonpath=….")
@click.option("-w", "--watch", is_flag=True, help="Go on with what changes.")
@click.option("--watch-only", is_flag=True, help="Only what changes from now on.")
@click.option("--no-headers", is_flag=True, help="Tables without their first line.")
@click.option("--show-labels", is_flag=True, help="Labels as the last column.")
@click.option("--show-managed-fields", is_flag=True, help="Also who set which field.")
@click.option("--ignore-not-found", is_flag=True, help="What isn't there is no error.")
@click.option("--sort-by", default="", help="Path to sort by: .metadata.creationTimestamp.")
@click.pass_obj
async def get(
    session: Session,
    words: tuple[str, ...],
    all_namespaces: bool,
    labels: str,
    fields: str,
    filenames: tuple[str, ...],
    recursive: bool,
    form: str,
    watch: bool,
    watch_only: bool,
    no_headers: bool,
    show_labels: bool,
    show_managed_fields: bool,
    ignore_not_found: bool,
    sort_by: str,
) -> int:
    """Show objects.

    \b
    kcore get pods -o wide
    kcore get deploy/web svc/web -o yaml
    """
    output.check(form, ("wide", "name", "yaml", "json"))
    catalogue = await session.kinds()
    if filenames:
        from kcore.client import manifest

        found = manifest.load(filenames, catalogue, recursive=recursive, stdin=session.stdin.read)
        subjects = [subject.Subject(m.kind, objects.metadata(m.message).name) for m in found]
    else:
        subjects = subject.parse(words, catalogue)
    named = all(s.name for s in subjects)
    if named and all_namespaces:
        raise click.UsageError("a name and -A don't go together")
    if named and (labels or fields):
        raise click.UsageError("a name and a selector don't go together")
    view = _View(session, form, all_namespaces, no_headers, show_labels, show_managed_fields)
    if watch or watch_only:
        if len({s.kind.full_name for s in subjects}) > 1:
            raise click.UsageError("only one kind can be watched at a time")
        return await view.watch(subjects, labels, fields, now_too=not watch_only)
    batches, failed = await _read(
        session, subjects, all_namespaces, labels, fields, ignore_not_found
    )
    if sort_by:
        batches = [_Batch(b.kind, _sorted(b.items, sort_by), b.revision) for b in batches]
    view.show(batches, several=len(subjects) > 1, one=named and len(subjects) == 1)
    return failed


class _Batch:
    """Objects of one kind."""

    def __init__(self, kind: Kind, items: list[Message], revision: int = 0) -> None:
        self.kind = kind
        self.items = items
        self.revision = revision


async def _read(
    session: Session,
    subjects: Sequence[subject.Subject],
    everywhere: bool,
    labels: str,
    fields: str,
    ignore_not_found: bool,
) -> tuple[list[_Batch], int]:
    """What is there, by kind in the order asked for; and the exit code."""
    namespace = "" if everywhere else session.namespace
    batches: list[_Batch] = []
    failed = 0
    for asked in subjects:
        try:
            if asked.name:
                items = [await objects.get(session, asked.kind, namespace, asked.name)]
                revision = 0
            else:
                listing = await objects.listing(
                    session, asked.kind, namespace, labels=labels, fields=fields
                )
                items, revision = listing.items, listing.revision
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND or not asked.name:
                raise
            if not ignore_not_found:
                session.say(f"error: {error.message}")
                failed = FAILED
            continue
        if batches and batches[-1].kind is asked.kind:
            batches[-1].items += items
        else:
            batches.append(_Batch(asked.kind, items, revision))
    return batches, failed


def _sorted(items: list[Message], path: str) -> list[Message]:
    from kcore.cli import jsonpath

    def key(message: Message) -> tuple[int, Any, str]:
        found = jsonpath.find(path.strip("{}"), output.plain(message))
        value = found[0] if found else None
        if isinstance(value, bool | int | float):
            return (1, value, "")
        return (0 if value is None else 2, 0, "" if value is None else str(value))

    return sorted(items, key=key)


class _View:
    """How objects are shown."""

    def __init__(
        self,
        session: Session,
        form: str,
        everywhere: bool,
        no_headers: bool,
        show_labels: bool,
        managed_fields: bool,
    ) -> None:
        self._session = session
        self._form = form
        self._everywhere = everywhere
        self._headers = not no_headers
        self._labels = show_labels
        self._managed_fields = managed_fields

    def show(self, batches: list[_Batch], *, several: bool, one: bool) -> None:
        """All of it."""
        if self._form in ("", "wide"):
            self._tables(batches, several)
        elif self._form == "name":
            for batch in batches:
                for message in batch.items:
                    self._session.out(output.name(batch.kind, message))
        else:
            shown = [self._plain(message) for batch in batches for message in batch.items]
            if one and not shown:
                return
            revision = batches[0].revision if len(batches) == 1 else 0
            value = shown[0] if one else output.as_list(shown, revision)
            text = output.text(value, self._form)
            if self._form in ("yaml", "json"):
                self._session.out(text)
            else:
                self._session.stdout.write(text)

    def _tables(self, batches: list[_Batch], several: bool) -> None:
        shown = 0
        for batch in batches:
            if not batch.items:
                continue
            if shown:
                self._session.out("")
            shown += 1
            rows, table = self._table(batch.kind, prefix=several and len(batches) > 1)
            for line in table.lines([rows(message) for message in batch.items]):
                self._session.out(line)
        if batches and not shown:
            namespaced = any(batch.kind.namespaced for batch in batches)
            where = (
                f" in {self._session.namespace} namespace"
                if namespaced and not self._everywhere
                else ""
            )
            self._session.say(f"No resources found{where}.")

    def _table(self, kind: Kind, *, prefix: bool) -> tuple[Any, Table]:
        """A function from objects to rows, and the table for them."""
        from kcore.client.columns import Columns

        columns = Columns(kind, wide=self._form == "wide")
        spaced = self._everywhere and kind.namespaced
        headers = [*(["NAMESPACE"] if spaced else []), *columns.headers]
        if self._labels:
            headers.append("LABELS")

        def row(message: Message) -> list[str]:
            metadata = objects.metadata(message)
            cells = columns.row(message, self._session.clock.now())
            if prefix and columns.headers[0] == "NAME":
                cells[0] = f"{kind.singular_resource}/{cells[0]}"
            if spaced:
                cells.insert(0, metadata.namespace)
            if self._labels:
                labels = ",".join(f"{k}={metadata.labels[k]}" for k in sorted(metadata.labels))
                cells.append(labels or "<none>")
            return cells

        return row, Table(headers, show_headers=self._headers)

    def _plain(self, message: Message) -> dict[str, Any]:
        return output.plain(message, managed_fields=self._managed_fields)

    async def watch(
        self, subjects: Sequence[subject.Subject], labels: str, fields: str, *, now_too: bool
    ) -> int:
        """Objects as they change, until interrupted."""
        kind = subjects[0].kind
        names = [s.name for s in subjects if s.name]
        namespace = "" if self._everywhere else self._session.namespace
        if names and now_too:
            for name in names:
                await objects.get(self._session, kind, namespace, name)
        if self._form in ("", "wide"):
            row, table = self._table(kind, prefix=False)
        else:
            row, table = None, None
        changes = follow.changes(
            self._session, kind, namespace, names=names, labels=labels, fields=fields
        )
        async with aclosing(changes):
            async for batch in changes:
                messages = [m for m in batch.objects if now_too or batch.live]
                if not messages:
                    continue
                if table is not None and row is not None:
                    for line in table.lines([row(message) for message in messages]):
                        self._session.out(line)
                else:
                    for message in messages:
                        self._one(kind, message)
                self._session.stdout.flush()
        raise Exit(FAILED, "error: the watch has ended")

    def _one(self, kind: Kind, message: Message) -> None:
        if self._form == "name":
            self._session.out(output.name(kind, message))
        else:
            lead = "---\n" if self._form == "yaml" else ""
            self._session.out(lead + output.text(self._plain(message), self._form))
