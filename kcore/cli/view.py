"""How objects are shown: as tables, names, YAML, JSON, by a path or an expression; all, or one by
one as they change.

What the user asked for is a `Look`; a `View` shows batches of objects accordingly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects, output
from kcore.cli.session import Session
from kcore.cli.table import Table
from kcore.client.kinds import Kind

FORMS = ("wide", "name", "yaml", "json", "custom-columns=", "cel=")


@dataclass(frozen=True, slots=True)
class Look:
    """What was asked for."""

    form: str = ""
    # Of all namespaces: these are shown.
    everywhere: bool = False
    headers: bool = True
    labels: bool = False
    label_columns: tuple[str, ...] = ()
    kinds: bool = False
    managed_fields: bool = False
    # What happened, too: ADDED, MODIFIED, DELETED.
    events: bool = False
    # Seconds since 1970 that ages count to; None: now.
    seconds: float | None = None


@dataclass(slots=True)
class Batch:
    """Objects of one kind."""

    kind: Kind
    items: list[Message]
    revision: int = 0


class View:
    """Shows objects on a session's standard output."""

    def __init__(self, session: Session, look: Look) -> None:
        """Nothing is shown yet."""
        self._session = session
        self._look = look
        # Of the kind last shown, for what comes one by one.
        self._table: tuple[Kind, Table, Callable[[Message], list[str]]] | None = None

    def show(self, batches: list[Batch], *, several: bool, one: bool) -> None:
        """All of it. `several`: of kinds or names; `one`: a single object, no list."""
        form = self._look.form
        if form in ("", "wide") or form.startswith("custom-columns="):
            self._tables(batches, several)
        elif form == "name" or form.startswith("cel="):
            for batch in batches:
                self.lines(batch.kind, batch.items)
        else:
            shown = [self._plain(message) for batch in batches for message in batch.items]
            if one and not shown:
                return
            revision = batches[0].revision if len(batches) == 1 else 0
            text = output.text(shown[0] if one else output.as_list(shown, revision), form)
            if form.startswith("jsonpath="):
                self._session.raw(text)
            else:
                self._session.out(text)

    def lines(
        self,
        kind: Kind,
        messages: Sequence[Message],
        types: Sequence[pb.Event.Type] = (),
    ) -> None:
        """Some more objects, each for itself. `types`: what happened to them."""
        form = self._look.form
        if form in ("", "wide") or form.startswith("custom-columns="):
            if self._table is None or self._table[0] is not kind:
                self._table = (kind, *self._columns(kind, prefix=self._look.kinds))
            _, table, row = self._table
            rows = [row(message) for message in messages]
            if self._look.events:
                rows = [[pb.Event.Type.Name(t), *r] for t, r in zip(types, rows, strict=True)]
            for line in table.lines(rows):
                self._session.out(line)
        elif form == "name":
            for message in messages:
                self._session.out(output.name(kind, message))
        elif form.startswith("cel="):
            said = self._expression(kind)
            for message in messages:
                self._session.out(said(message, self._now()))
        else:
            for index, message in enumerate(messages):
                value = self._plain(message)
                if self._look.events:
                    value = {"type": pb.Event.Type.Name(types[index]), "object": value}
                lead = "---\n" if form == "yaml" else ""
                text = lead + output.text(value, form)
                if form.startswith("jsonpath="):
                    self._session.raw(text)
                else:
                    self._session.out(text)

    def _tables(self, batches: list[Batch], several: bool) -> None:
        shown = 0
        for batch in batches:
            if not batch.items:
                continue
            if shown:
                self._session.out("")
            shown += 1
            prefix = self._look.kinds or (several and len(batches) > 1)
            table, row = self._columns(batch.kind, prefix=prefix)
            for line in table.lines([row(message) for message in batch.items]):
                self._session.out(line)

    def _columns(self, kind: Kind, *, prefix: bool) -> tuple[Table, Callable[[Message], list[str]]]:
        """The table of a kind, and a function from objects to its rows."""
        look = self._look
        if look.form.startswith("custom-columns="):
            headers, row = self._custom()
            return self._empty(headers), row
        from kcore.client.columns import Columns

        columns = Columns(kind, wide=look.form == "wide")
        spaced = look.everywhere and kind.namespaced
        headers = [*(["NAMESPACE"] if spaced else []), *columns.headers]
        headers += [key.rpartition("/")[2].upper() for key in look.label_columns]
        headers += ["LABELS"] if look.labels else []

        def of(message: Message) -> list[str]:
            metadata = objects.metadata(message)
            cells = columns.row(message, self._now())
            if prefix and columns.headers[0] == "NAME":
                cells[0] = f"{kind.singular_resource}/{cells[0]}"
            if spaced:
                cells.insert(0, metadata.namespace)
            cells += [metadata.labels.get(key, "") for key in look.label_columns]
            if look.labels:
                labels = ",".join(f"{k}={metadata.labels[k]}" for k in sorted(metadata.labels))
                cells.append(labels or "<none>")
            return cells

        return self._empty(headers), of

    def _custom(self) -> tuple[list[str], Callable[[Message], list[str]]]:
        from kcore.cli import custom_columns

        said = self._look.form.removeprefix("custom-columns=")
        parse = custom_columns.parse_file if "\n" in said else custom_columns.parse
        columns = parse(said)
        return (
            [heading for heading, _ in columns],
            lambda message: custom_columns.row(columns, self._plain(message)),
        )

    def _empty(self, headers: list[str]) -> Table:
        return Table(
            ["EVENT", *headers] if self._look.events else headers,
            show_headers=self._look.headers,
            colored=self._session.colored(self._session.stdout),
        )

    def _expression(self, kind: Kind) -> Callable[[Message, float], str]:
        from kcore.client import columns

        try:
            return columns.value_of(kind, self._look.form.removeprefix("cel="))
        except ValueError as wrong:
            raise click.UsageError(f"-o cel: {wrong}") from None

    def _now(self) -> float:
        return self._session.clock.now() if self._look.seconds is None else self._look.seconds

    def _plain(self, message: Message) -> dict[str, Any]:
        return output.plain(message, managed_fields=self._look.managed_fields)
