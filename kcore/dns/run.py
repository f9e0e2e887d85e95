"""The dns room: keeps zone files as services and their slices say.

One watch; what comes together is written together. Until all services have been seen nothing is
written: what is served stays as it was, whoever restarts. It opens no port: CoreDNS answers.
"""

import ipaddress
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kcore_api.kcore.core.v1 import pool_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.dns import files, records, render
from kcore.dns.records import Network
from kcore.dns.zones import Name, Zones
from kcore.reconcile import stream
from kcore.reconcile.view import Change, View
from kcore.tasks import Tasks
from kcore.wire.api import Api

Pool = pool_pb2.Pool
Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice

DOMAIN = "cluster.local"
SERVICE_NAME = "kubernetes.io/service-name"
RESOLV_CONF = Path("/etc/resolv.conf")
AGAIN_SECONDS = 1.0
log = logging.getLogger(__name__)


async def run(
    api: Api,
    directory: Path,
    seen_at: str,
    address: str,
    clock: Clock,
    chance: Chance,
    resolver: Path = RESOLV_CONF,
) -> None:
    """Until cancelled; the files stay as they are.

    `directory` gets `Corefile` and `zones/`; CoreDNS sees it at `seen_at`, and is itself seen at
    `address`. Names that are not the cluster's go to the servers that `resolver` names.
    """
    view = View((Service, EndpointSlice, Pool), {EndpointSlice: {"service": _service}})
    zones = Zones(DOMAIN, address)
    flow = stream.Stream(api, view.kinds, clock, chance.fork("stream"))
    place = directory / "zones"
    place.mkdir(parents=True, exist_ok=True)
    dirty: dict[str, None] = {}
    async with Tasks() as tasks:
        tasks.start(flow.run(), "dns stream")
        while True:
            changed: dict[Name, None] = {}
            for batch in (await flow.next(), *flow.come()):
                for change in view.apply(batch):
                    changed |= dict.fromkeys(_concerned(change))
            if not view.synced:
                continue
            layout = zones.serve(_networks(view))
            dirty |= dict.fromkeys(layout)
            dirty |= dict.fromkeys(zones.update({name: _records(view, name) for name in changed}))
            # A full disk passes; what could not be written is written then.
            while dirty or layout:
                try:
                    if layout:
                        said = render.corefile(zones.names, f"{seen_at}/zones", _upstream(resolver))
                        files.write(directory / "Corefile", said)
                        files.remove_others(place, zones.names)
                        layout = ()
                    for zone in list(dirty):
                        files.write_zone(place, zones.zone(zone), view.revision)
                        del dirty[zone]
                except OSError as error:
                    log.warning("zones: %s; again in %s s", error, AGAIN_SECONDS)
                    await clock.sleep(AGAIN_SECONDS)


def _records(view: View, name: Name) -> Sequence[records.Record]:
    service = view.get(Service, *name)
    if service is None:
        return ()
    slices = view.list(EndpointSlice, index=("service", "/".join(name)))
    return records.of_service(service, slices, DOMAIN)


def _service(slice_: EndpointSlice) -> Iterator[str]:
    """Index: slices by their service."""
    service = slice_.metadata.labels.get(SERVICE_NAME)
    if service:
        yield f"{slice_.metadata.namespace}/{service}"


def _concerned(change: Change) -> Iterator[Name]:
    """The services that a change is about."""
    if change.name.kind == Service.DESCRIPTOR.full_name:
        yield change.name.namespace, change.name.name
    elif change.name.kind == EndpointSlice.DESCRIPTOR.full_name:
        for each in (change.old, change.new):
            for found in () if each is None else _service(each):
                namespace, _, service = found.partition("/")
                yield namespace, service


def _networks(view: View) -> Sequence[Network]:
    """All networks that addresses of the cluster are from."""
    found: list[Network] = []
    for pool in view.list(Pool):
        try:
            found.append(ipaddress.ip_network(pool.spec.cidr))
        except ValueError:
            continue
    return found


def _upstream(path: Path) -> Sequence[str]:
    """The servers that this machine asks, less itself."""
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    words = [line.split() for line in lines]
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return [server for server in found if not server.startswith("127.") and server != "::1"][:3]
