"""Admission of namespaces: each carries its name as a label, so that selectors can name it."""

from collections.abc import Callable
from typing import Any

from kcore.wire.errors import Violation

NAME_LABEL = "kubernetes.io/metadata.name"
# Shown as in Kubernetes; taken away when the namespace is empty.
FINALIZER = "kubernetes"


def admit(obj: Any, old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Sets the label, always; at creation the finalizer and the phase."""
    obj.metadata.labels[NAME_LABEL] = obj.metadata.name
    if old is None:
        if FINALIZER not in obj.spec.finalizers:
            obj.spec.finalizers.append(FINALIZER)
        obj.status.phase = "Active"
    return []
