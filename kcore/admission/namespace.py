"""Admission of namespaces: each carries its name as a label, so that selectors can name it."""

from collections.abc import Callable
from typing import Any

from kcore.wire.errors import Violation

NAME_LABEL = "kubernetes.io/metadata.name"


def admit(obj: Any, old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Sets the label, always, and the phase at creation."""
    obj.metadata.labels[NAME_LABEL] = obj.metadata.name
    if old is None:
        obj.status.phase = "Active"
    return []
