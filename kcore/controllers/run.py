"""All controllers: `run(api, clock, chance)` runs them until it is cancelled."""

from datetime import UTC, tzinfo

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.controllers import (
    cronjob,
    daemonset,
    deployment,
    disruption,
    endpoints,
    garbage,
    job,
    namespace,
    node_lifecycle,
    orphan,
    replicaset,
    statefulset,
    taint_eviction,
)
from kcore.reconcile import loop
from kcore.reconcile.controller import Controller
from kcore.wire.api import Api


def every(root_certificate: str = "", zone: tzinfo = UTC) -> list[Controller]:
    """All controllers, owners before what they own; see `namespace` and `cronjob`."""
    return [
        namespace.controller(root_certificate),
        deployment.CONTROLLER,
        replicaset.CONTROLLER,
        endpoints.CONTROLLER,
        statefulset.CONTROLLER,
        daemonset.CONTROLLER,
        cronjob.controller(zone),
        job.CONTROLLER,
        disruption.CONTROLLER,
        node_lifecycle.CONTROLLER,
        taint_eviction.CONTROLLER,
        orphan.CONTROLLER,
        garbage.CONTROLLER,
    ]


async def run(
    api: Api, clock: Clock, chance: Chance, root_certificate: str = "", zone: tzinfo = UTC
) -> None:
    """Runs all controllers until cancelled."""
    await loop.run(api, every(root_certificate, zone), clock, chance)
