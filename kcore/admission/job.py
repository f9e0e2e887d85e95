"""Admission of jobs: the selector and the labels that tell its pods from all others."""

from collections.abc import Callable
from typing import Any

from kcore.wire.errors import Violation

UID_LABEL = "batch.kubernetes.io/controller-uid"
NAME_LABEL = "batch.kubernetes.io/job-name"
# What they were called before.
_OLD_UID_LABEL = "controller-uid"
_OLD_NAME_LABEL = "job-name"


def admit(obj: Any, old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Labels the template, and selects by the job's own uid unless the user does it himself."""
    spec = obj.spec
    if old is not None:
        # What a manifest does not say of these was filled in at creation and stays.
        if old.spec.HasField("selector") and not spec.HasField("selector"):
            spec.selector.CopyFrom(old.spec.selector)
        for key in (UID_LABEL, NAME_LABEL, _OLD_UID_LABEL, _OLD_NAME_LABEL):
            labels = spec.template.metadata.labels
            if key in old.spec.template.metadata.labels and key not in labels:
                labels[key] = old.spec.template.metadata.labels[key]
        return []
    if spec.manual_selector:
        missing = not spec.HasField("selector")
        said = "Required value: manualSelector is set"
        return [Violation("spec.selector", said)] if missing else []
    if spec.HasField("selector"):
        said = "Invalid value: must not be set unless manualSelector is"
        return [Violation("spec.selector", said)]
    labels = spec.template.metadata.labels
    labels[UID_LABEL] = labels[_OLD_UID_LABEL] = obj.metadata.uid
    # A label holds 63 characters, a job's name may have more.
    labels[NAME_LABEL] = labels[_OLD_NAME_LABEL] = obj.metadata.name[:63].rstrip("-.")
    spec.selector.match_labels[UID_LABEL] = obj.metadata.uid
    return []
