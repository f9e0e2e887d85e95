"""Asks one pod's probes, each at its own times, and tells what was found.

    prober.follow(pod, observed, memory)     # after each look at the runtime

One task for each probe that is due; it goes with its instance. They change `memory.healths`, and
call `changed` when they did.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import handler, health, launch, sync
from kcore.kubelet.observed import Container, Observed

log = logging.getLogger(__name__)

DEFAULT_PERIOD_SECONDS, DEFAULT_TIMEOUT_SECONDS = 10, 1


@dataclass
class Prober:
    """The probes of one pod."""

    node: launch.Node
    memory: sync.Memory
    # An instance's health is another one.
    changed: Callable[[], None]
    pod: pod_pb2.Pod = field(default_factory=pod_pb2.Pod)
    # By container id and kind.
    _tasks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)
    _address: str = ""
    # Instances that a kubelet before this one has looked after.
    _found: frozenset[str] | None = None

    def follow(self, pod: pod_pb2.Pod, observed: Observed) -> None:
        """Asks what is due now, and nothing else."""
        self.pod = pod
        addresses = launch.facts(self.node, pod, observed).pod_addresses
        self._address = addresses[0] if addresses else ""
        if self._found is None:
            self._found = frozenset(one.id for one in observed.running)
        ending = sync.ending(pod, self.memory)
        specs = {one.name: one for one in sync.every(pod)}
        wanted: dict[tuple[str, str], tuple[Container, container_pb2.Container]] = {}
        for one in observed.running:
            if (spec := specs.get(one.name)) is None or self._is_killed(one, ending):
                continue
            for kind in health.due(spec, self.memory.health_of(spec, one.id), ending=ending):
                wanted[one.id, kind] = (one, spec)
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
        for key, (one, spec) in wanted.items():
            if key not in self._tasks:
                work = self._probe(one, spec, key[1])
                name = f"{key[1]} probe of {one.name}"
                self._tasks[key] = self.node.tasks.supervise(work, _grumble, name)

    def close(self) -> None:
        """Asks nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _is_killed(self, one: Container, ending: bool) -> bool:
        """Whether it is this one that ends, and not the pod."""
        return one.id in self.memory.killing and not ending

    async def _probe(self, one: Container, spec: container_pb2.Container, kind: str) -> None:
        probe = health.probe_of(spec, kind)
        assert probe is not None
        clock = self.node.clock
        period = float(probe.period_seconds or DEFAULT_PERIOD_SECONDS)
        seconds = probe.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        # Whatever has been done to the clock on the wall: not longer than it says.
        ran = max(0.0, clock.now() - (one.started_at or one.created_at))
        wait = max(0.0, probe.initial_delay_seconds - ran)
        if not wait and self._found is not None and one.id in self._found:
            # A new kubelet does not ask all its containers at the same moment.
            wait = zlib.crc32(f"{one.id} {kind}".encode()) % 1000 / 1000 * period
        await clock.sleep(wait)
        tally = health.Tally()
        while True:
            began = clock.monotonic()
            place = handler.Place(self.node.runtime, one.id, spec, self._address)
            answer = await handler.ask(probe.handler, place, seconds)
            self._tell(kind, answer)
            if answer.is_success is not None:
                tally = health.count(tally, answer.is_success)
                before = self.memory.health_of(spec, one.id)
                after = health.found(spec, kind, before, tally)
                if after != before:
                    self.memory.healths[one.id] = after
                    self.changed()
            await clock.sleep(max(0.0, began + period - clock.monotonic()))

    def _tell(self, kind: str, answer: handler.Answer) -> None:
        title = kind.capitalize()
        if not answer.is_success:
            how = "errored" if answer.is_success is None else "failed"
            said = f"{title} probe {how}: {answer.said}"
            self.node.event(self.pod, "Warning", "Unhealthy", said)
        elif answer.is_odd:
            said = f"{title} probe warning: {answer.said}"
            self.node.event(self.pod, "Warning", "ProbeWarning", said)


def _grumble(error: Exception) -> None:
    log.error("a probe failed: %r", error)
