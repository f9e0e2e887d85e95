"""The Services that containers are told of when they start.

`beside(pod)` asks the API each time, so nothing is older than the container. Where the API is away,
what was heard last is what counts: a container that has to start again does not wait for it. So
that there is something, `learn(pod)` asks once for each namespace.
"""

import contextlib
from dataclasses import dataclass, field

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2, service_pb2

from kcore.kubelet import static_pod
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

Service = service_pb2.Service
KIND = Service.DESCRIPTOR.full_name
# The Service by which pods find the API.
API_NAMESPACE, API_NAME = "default", "kubernetes"


@dataclass
class Services:
    """What the API says of them, and has said."""

    api: Api
    # Of a namespace, or of one name in it.
    _known: dict[tuple[str, str], list[Service]] = field(default_factory=dict)

    async def beside(self, pod: pod_pb2.Pod) -> list[Service]:
        """Those of the pod's namespace, if it wants to hear of them, and the API's own.

        None for a static pod: it has to start where there is no API yet.
        """
        if static_pod.SOURCE in pod.metadata.annotations:
            return []
        namespace = pod.metadata.namespace
        wants = pod.spec.enable_service_links or not pod.spec.HasField("enable_service_links")
        found = await self._ask(namespace, "") if wants else []
        if not (wants and namespace == API_NAMESPACE):
            # A namespace may have one of this name itself.
            found = [*await self._ask(API_NAMESPACE, API_NAME), *found]
        return found

    async def learn(self, pod: pod_pb2.Pod) -> None:
        """Of a pod that somebody else has started: so that it can start again whatever happens."""
        if (pod.metadata.namespace, "") not in self._known:
            with contextlib.suppress(ApiError):
                await self.beside(pod)

    async def _ask(self, namespace: str, name: str) -> list[Service]:
        selection = pb.Selection(kind=KIND, namespace=namespace, names=[name] if name else [])
        request, found = pb.ListRequest(selection=selection), []
        try:
            while True:
                answer = await self.api.list(request)
                found += [Service.FromString(body) for body in answer.items]
                request.page_token = getattr(answer.metadata, "continue")
                if not request.page_token:
                    break
        except ApiError as error:
            known = self._known.get((namespace, name))
            if error.reason is not Reason.UNAVAILABLE or known is None:
                raise
            return known
        self._known[namespace, name] = found
        return found
