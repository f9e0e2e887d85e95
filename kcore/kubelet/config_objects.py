"""The ConfigMaps and Secrets that pods name, fetched when a pod needs them.

Nothing is kept: a container that starts sees what is there at that moment.
"""

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, pod_pb2, secret_pb2

from kcore.kubelet import env
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason


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


async def _get(api: Api, kind: str, namespace: str, name: str) -> bytes | None:
    try:
        ref = pb.Ref(kind=kind, namespace=namespace, name=name)
        answer = await api.get(pb.GetRequest(ref=ref))
    except ApiError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise
    return answer.object
