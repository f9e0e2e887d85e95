"""A node's runtime as its kubelet reaches it: calls fail, before or after they took effect.

`Door` is a `Runtime` of kcore/kubelet/cri.py around another one. It must not know what a call
means: a failure is UNAVAILABLE, an unknown outcome.
"""

import inspect
from collections.abc import Callable
from typing import Any, cast

from kcore.kubelet import cri
from kcore.sim.faults import Weather


class Door:
    """One kubelet's way to its runtime."""

    def __init__(self, runtime: cri.Runtime, node: str, weather: Weather) -> None:
        """Use `opened`, which gives it its type."""
        self._runtime = runtime
        self._node = node
        self._weather = weather

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._runtime, name)
        if not inspect.iscoroutinefunction(call):
            return cast(Callable[..., Any], call)

        async def maybe(*args: Any, **kwargs: Any) -> Any:
            failure = self._weather.faults.runtime_fails / 2
            whom = f"{name} on {self._node}"
            if self._weather.strikes(failure, "runtime fails before", whom):
                raise cri.CriError(cri.Code.UNAVAILABLE, "connection reset", name)
            answer = await call(*args, **kwargs)
            if self._weather.strikes(failure, "runtime fails after", whom):
                raise cri.CriError(cri.Code.UNAVAILABLE, "connection reset", name)
            return answer

        return maybe


def opened(runtime: cri.Runtime, node: str, weather: Weather) -> cri.Runtime:
    """The runtime, through a door."""
    return cast(cri.Runtime, Door(runtime, node, weather))
