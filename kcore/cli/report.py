"""What became of objects: a line for each as it is known, or the objects in the form asked for."""

from typing import Any, Final

from google.protobuf.message import Message

from kcore.cli import output
from kcore.cli.session import Session
from kcore.client.kinds import Kind

DRY: Final = {"none": "", "client": " (dry run)", "server": " (server dry run)"}


class Report:
    """One command's; `end` shows what can only be shown together."""

    def __init__(self, session: Session, form: str, dry_run: str = "none") -> None:
        """`form`: as `output.check` gave it."""
        self._session = session
        self._form = form
        self._dry = DRY[dry_run]
        self._shown: list[dict[str, Any]] = []

    def add(self, kind: Kind, message: Message, word: str) -> None:
        """An object and what was done to it: "created"."""
        if self._form == "name":
            self._session.out(output.name(kind, message))
        elif self._form:
            self._shown.append(output.plain(message))
        else:
            self._session.out(f"{output.name(kind, message)} {word}{self._dry}")

    def end(self, *, one: bool = False) -> None:
        """All has been added. `one`: it was one object that was asked for."""
        if self._shown:
            single = one or len(self._shown) == 1
            value = self._shown[0] if single else output.as_list(self._shown)
            self._session.out(output.text(value, self._form))
