"""Zone files on disk: the door to CoreDNS, which reads them when their serial has risen.

A file is written whole or not at all. Serials are the cluster's revisions, and rise also where that
has gone back: a server that has seen a serial would not look at a lower one.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kcore.dns.render import Zone

_SERIAL: Final = re.compile(r"^\s+(\d{1,10}) ; serial", re.MULTILINE)
_MOST: Final = 2**32


def write_zone(directory: Path, zone: Zone, revision: int) -> bool:
    """Writes the zone's file if it says something else; whether it did."""
    path = directory / f"db.{zone.name}"
    try:
        before = path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        before = ""
    found = _SERIAL.search(before)
    last = int(found[1]) if found is not None else 0
    if before and before == zone.text(last):
        return False
    write(path, zone.text(max(last + 1, revision) % _MOST or 1))
    return True


def remove_others(directory: Path, zones: Iterable[str]) -> None:
    """Files of zones that are no more."""
    kept = {f"db.{zone}" for zone in zones}
    for path in directory.glob("db.*"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Replaces a file in one step; for everybody to read."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text)
    draft.chmod(0o644)
    os.replace(draft, path)
