"""The ConfigMaps and Secrets that pods name and the Services beside them, fetched when needed.

Nothing is kept: a container that starts sees what is there at that moment.
"""

from collections.abc import AsyncIterator

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, pod_pb2, secret_pb2, service_pb2

from kcore.kubelet import env, static_pod
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

# The Service by which pods find the API.
API_NAMESPACE, API_NAME = "default", "kubernetes"


async def fetch(api: Api, pod: pod_pb2.Pod) -> env.Named:
    """Those that exist. Other errors are raised: what cannot be read is not missing."""
    config_maps, secrets = env.names(pod)
    namespace = pod.metadata.namespace
    found_maps: dict[str, dict[str, bytes]] = {}
    found_secrets: dict[str, dict[str, bytes]] = {}
    for name in config_maps:
        body = await _get(api, config_map_pb2.ConfigMap.DESCRIPTOR.full_name, namespace, name)
        if body is not None:
            one = config_map_pb2.ConfigMap.FromString(body)
            found_maps[name] = {key: value.encode() for key, value in one.data.items()}
            found_maps[name] |= dict(one.binary_data)
    for name in secrets:
        body = await _get(api, secret_pb2.Secret.DESCRIPTOR.full_name, namespace, name)
        if body is not None:
            found_secrets[name] = dict(secret_pb2.Secret.FromString(body).data)
    return env.Named(found_maps, found_secrets)


async def services(api: Api, pod: pod_pb2.Pod) -> list[service_pb2.Service]:
    """Those of the pod's namespace, if it wants to hear of them, and the API's own.

    None for a static pod: it has to start where there is no API yet.
    """
    if static_pod.SOURCE in pod.metadata.annotations:
        return []
    kind = service_pb2.Service.DESCRIPTOR.full_name
    namespace = pod.metadata.namespace
    wants = pod.spec.enable_service_links or not pod.spec.HasField("enable_service_links")
    bodies = [body async for body in _all(api, kind, namespace)] if wants else []
    if not (wants and namespace == API_NAMESPACE):
        own = await _get(api, kind, API_NAMESPACE, API_NAME)
        # A namespace may have one of this name itself.
        bodies[:0] = [own] if own is not None else []
    return [service_pb2.Service.FromString(body) for body in bodies]


async def _all(api: Api, kind: str, namespace: str) -> AsyncIterator[bytes]:
    request = pb.ListRequest(selection=pb.Selection(kind=kind, namespace=namespace))
    while True:
        answer = await api.list(request)
        for body in answer.items:
            yield body
        request.page_token = getattr(answer.metadata, "continue")
        if not request.page_token:
            return


async def _get(api: Api, kind: str, namespace: str, name: str) -> bytes | None:
    try:
        ref = pb.Ref(kind=kind, namespace=namespace, name=name)
        answer = await api.get(pb.GetRequest(ref=ref))
    except ApiError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise
    return answer.object
