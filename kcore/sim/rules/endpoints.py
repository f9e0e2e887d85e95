"""Endpoints: a service leads to pods that are ready, unless it publishes all."""

from collections.abc import Iterator

from google.protobuf.message import Message

from kcore.kernel.record import Record
from kcore.sim import world as worlds
from kcore.sim.world import EndpointSlice, Pod, Service, World


def only_ready(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """What is called ready was so when it was last looked."""
    if not isinstance(new, EndpointSlice) or record.manager != "endpointslice-controller":
        return
    name = new.metadata.labels.get("kubernetes.io/service-name", "")
    service = world.get(Service.DESCRIPTOR.full_name, new.metadata.namespace, name)
    if not isinstance(service, Service) or service.spec.publish_not_ready_addresses:
        return
    pods = {pod.metadata.uid: pod for pod in world.pods()}
    for endpoint in new.endpoints:
        pod: Pod | None = pods.get(endpoint.target_ref.uid)
        well = pod is not None and worlds.is_well(pod)
        was_well = world.well_until.get(endpoint.target_ref.uid, 0) > record.because
        if endpoint.conditions.ready and not well and not was_well:
            yield f"leads to {endpoint.target_ref.name}, which is not ready"
