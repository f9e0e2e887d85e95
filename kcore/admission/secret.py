"""Admission of secrets: what was written as text becomes content and wins over it."""

from collections.abc import Callable
from typing import Any

from kcore.wire.errors import Violation


def admit(obj: Any, _old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Moves stringData into data."""
    for key in sorted(obj.string_data):
        obj.data[key] = obj.string_data[key].encode()
    obj.ClearField("string_data")
    return []
