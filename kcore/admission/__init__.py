"""Admission: what an object's creation implies beyond its own message, one pure function per kind.

`BY_KIND[kind](obj, old, read)` fills in what other objects or the cluster's habits decide, before
defaults and rules, and returns what it must refuse. `obj` is changed in place; `old` is the stored
object, None at creation; `read(kind, namespace, name)` gives another object as it is in this very
transaction, or None. The kernel is handed this table and calls it for writes of the whole object,
never for a subresource.

`ON_DELETE["kind/subresource"](obj, others, time)` does the same for a deletion through a door of
its own: it changes what goes, and returns the other objects that change with it, or raises
ApiError.

Messages are of the kernel's own classes, which have the fields of the generated ones but are not
them: by attribute only. It must not know who writes, nor keep anything.
"""

from collections.abc import Callable
from typing import Any

from kcore.admission import cron_job, endpoint_slice, eviction, job, namespace, pod, secret, service
from kcore.wire.errors import Violation

Read = Callable[[str, str, str], Any]
Admit = Callable[[Any, Any, Read], list[Violation]]
Leave = Callable[[Any, eviction.Others, float], list[Any]]

BY_KIND: dict[str, Admit] = {
    "kcore.batch.v1.CronJob": cron_job.admit,
    "kcore.batch.v1.Job": job.admit,
    "kcore.core.v1.Namespace": namespace.admit,
    "kcore.core.v1.Pod": pod.admit,
    "kcore.core.v1.Secret": secret.admit,
    "kcore.core.v1.Service": service.admit,
    "kcore.discovery.v1.EndpointSlice": endpoint_slice.admit,
}

ON_DELETE: dict[str, Leave] = {
    "kcore.core.v1.Pod/eviction": eviction.admit,
}
