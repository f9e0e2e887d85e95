"""One pod's worker: does what `sync.plan` says, one plan after another.

    worker = Worker(pod, node);  await worker.run()      # until Finish is done
    worker.want(pod)        # it has changed
    worker.seen(observed)   # the runtime has changed

Kills and pulls run beside the plan: a deletion with less grace overtakes one with more, and nobody
waits for a registry. All else happens in order, and may be left at any await, by a crash or because
the pod is to end: what comes next is read off the runtime again.

A failure is remembered and tried again after a while; the worker itself never dies of one, nor of a
pod that it does not understand.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import shutil
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import (
    container,
    cri,
    handler,
    health,
    image,
    launch,
    prober,
    refusal,
    status,
    sync,
    termination,
    volume,
)
from kcore.kubelet.observed import NOTHING, Observed
from kcore.wire.errors import ApiError

log = logging.getLogger(__name__)

Node = launch.Node

AGAIN_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
# How often volumes follow their objects, at least and at most; and how often sizes are looked at.
RENEW_SECONDS = (40, 60)
MEASURE_SECONDS = 10.0
# Steps that wait for people (a missing ConfigMap) or for the machine (its network): soon again.
SOON_SECONDS, LATER_SECONDS = 1.0, 15.0
_SOON = ("ContainerCreating", "CreateContainerConfigError", "CreateContainerError")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Worker:
    """The life of one pod on this node."""

    pod: pod_pb2.Pod
    node: Node
    # It has an object of its uid in the API, which goes when it ends.
    bound: bool = True
    observed: Observed = NOTHING
    memory: sync.Memory = field(default_factory=sync.Memory)
    # When to ask again, by the steady clock.
    again_at: float | None = None
    # Something is under way: worth looking at the runtime often.
    busy: bool = True
    # What the API shows of a pod that is not bound.
    _mirror: pod_pb2.Pod | None = None
    _seen: Observed | None = None
    _said: pod_pb2.PodStatus | None = None
    _finishing: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _limit: asyncio.Timeout | None = None
    _images: image.Images = field(init=False)
    _prober: prober.Prober = field(init=False)
    # preStop hooks that have begun, by container id.
    _hooks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _has_looked: bool = False
    # Last words by container id, and which of those that wait for a restart people know of.
    _words: dict[str, str] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    # Seconds and start that memory.deadline_at was reckoned from.
    _deadline: tuple[int, int] | None = None
    _tend_at: float | None = None

    def __post_init__(self) -> None:
        self._images = image.Images(self.node, self.memory, self._wake.set)
        self._prober = prober.Prober(self.node, self.memory, self._wake.set)

    def want(self, pod: pod_pb2.Pod) -> None:
        """The pod is wanted so now."""
        self.pod = pod
        if self._said is not None and not self._finishing:
            # Somebody else may have written to its status.
            self._report()
        if self._limit is not None and sync.ending(pod, self.memory):
            self._limit.reschedule(0.0)
            self._limit = None
        self._wake.set()

    def show(self, mirror: pod_pb2.Pod | None) -> None:
        """Of a static pod: this object is to tell people of it."""
        if mirror is not self._mirror:
            self._mirror = mirror
            if self._said is not None and not self._finishing:
                self._report()

    def seen(self, observed: Observed) -> None:
        """A look at all pods found this: if it is news, the worker looks for itself.

        It is never taken as it is: it may be older than what the worker has done since.
        """
        if observed != self._seen:
            self._seen = observed
            self._wake.set()

    async def run(self) -> None:
        """Until the pod is finished."""
        wait = AGAIN_SECONDS
        try:
            while True:
                self._wake.clear()
                self.busy = True
                try:
                    if await self._attend():
                        return
                    wait = AGAIN_SECONDS
                except (cri.CriError, ApiError, OSError) as error:
                    log.warning("%s: %s", self._name, error)
                    self.again_at = self.node.clock.monotonic() + wait
                except Exception:
                    # A pod that nobody foresaw must not stop the others.
                    log.exception("%s", self._name)
                    self.again_at = self.node.clock.monotonic() + wait
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
                self.busy = bool(self.memory.killing)
                await self._wait()
        finally:
            self._images.close()
            self._prober.close()
            for hook in self._hooks.values():
                hook.cancel()

    async def _attend(self) -> bool:
        """Plans and works; what was begun for a pod that was to run is left when it is to end."""
        while not sync.ending(self.pod, self.memory):
            try:
                async with asyncio.timeout(None) as limit:
                    self._limit = limit
                    return await self._round()
            except TimeoutError:
                if not limit.expired():
                    raise
            finally:
                self._limit = None
        return await self._round()

    async def _round(self) -> bool:
        """Until nothing is left to do now; True when the pod is finished."""
        while True:
            await self._look()
            self._judge()
            now = self.node.clock.monotonic()
            planned = sync.plan(self.pod, self.observed, self.memory, now)
            self.again_at = planned.again_at
            self._report()
            pod = self.pod
            for step in planned.steps:
                if isinstance(step, sync.Finish):
                    await self._finish()
                    return True
                await self._do(pod, step)
            if all(isinstance(step, sync.Kill) for step in planned.steps):
                await self._tend(now)
                return False

    async def _wait(self) -> None:
        pause = None
        if self.again_at is not None:
            pause = max(0.0, self.again_at - self.node.clock.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()

    @property
    def _name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    # Seeing and saying.

    async def _look(self) -> None:
        """What the runtime has of the pod, with last words and moments of the steady clock."""
        node, memory = self.node, self.memory
        found = await node.reader.list_pod(self.pod.metadata.uid)
        wall, steady = node.clock.now(), node.clock.monotonic()
        specs = {one.name: one for one in sync.every(self.pod)}
        ended = [one for one in found.containers if one.state == "exited"]
        for one in ended:
            if one.id not in memory.ended:
                # Whatever has been done to the clock on the wall: not in the future.
                memory.ended[one.id] = steady - max(0.0, wall - one.finished_at)
            if one.id not in self._words:
                spec = specs.get(one.name)
                said = one.message
                if spec is not None and refusal.is_name(self.pod.metadata.uid):
                    said = termination.words(node.root, node.logs, self.pod, spec, one)
                self._words[one.id] = said
        self.observed = dataclasses.replace(
            found,
            containers=tuple(
                dataclasses.replace(one, message=self._words[one.id]) if one in ended else one
                for one in found.containers
            ),
        )
        there = {one.id for one in ended}
        for known in (memory.ended, self._words):
            for gone in [key for key in known if key not in there]:
                del known[gone]
        self._told &= there
        running = {one.id for one in found.running}
        for gone in [key for key in memory.killing if key not in running]:
            del memory.killing[gone]
        for gone in [key for key in memory.healths if key not in running]:
            del memory.healths[gone]
        for gone in [key for key in self._hooks if key not in running]:
            self._hooks.pop(gone).cancel()
        if not self._has_looked:
            self._has_looked = True
            self._recall()
            if self.observed.running:
                learning = node.services.learn(self.pod)
                node.tasks.supervise(learning, self._grumble, "services")
        self._prober.follow(self.pod, self.observed)

    def _recall(self) -> None:
        """What is known of instances that were there before this worker."""
        specs = {one.name: one for one in sync.every(self.pod)}
        shown = self.pod if self.bound else self._mirror
        told = shown.status if shown is not None else pod_pb2.PodStatus()
        said = {one.name: one for one in (*told.init_container_statuses, *told.container_statuses)}
        for one in self.observed.running:
            spec, known = specs.get(one.name), said.get(one.name)
            if spec is None:
                continue
            if known is not None and known.container_id.endswith(f"//{one.id}"):
                self.memory.healths[one.id] = health.recalled(spec, known)
            elif not self.bound:
                # Who asks for a hook once would rather miss it than have it at every start of ours.
                self.memory.healths[one.id] = health.begin(spec, health.fresh(spec))

    def _judge(self) -> None:
        """Whether the pod as a whole has failed."""
        pod, memory, clock = self.pod, self.memory, self.node.clock
        if not sync.ending(pod, memory) and not sync.over(pod, self.observed):
            memory.ends_at = None
        if memory.failed is not None:
            return
        try:
            refusal.sandbox(pod)
        except refusal.Refused as error:
            self._fail("SysctlForbidden", str(error))
            return
        self._reckon_deadline()
        if memory.deadline_at is not None and clock.monotonic() >= memory.deadline_at:
            said = "Pod was active on the node longer than the specified deadline"
            self._fail("DeadlineExceeded", said)

    def _fail(self, reason: str, message: str) -> None:
        if self.pod.status.phase not in sync.FINAL:
            self.memory.failed = (reason, message)
            self.node.event(self.pod, "Warning", reason, message)

    def _reckon_deadline(self) -> None:
        spec, memory, clock = self.pod.spec, self.memory, self.node.clock
        if not spec.HasField("active_deadline_seconds") or sync.over(self.pod, self.observed):
            memory.deadline_at = None
            return
        said = self._said if self._said is not None else self.pod.status
        if not said.HasField("start_time"):
            return
        base = (spec.active_deadline_seconds, said.start_time.seconds)
        if base != self._deadline or memory.deadline_at is None:
            self._deadline = base
            memory.deadline_at = clock.monotonic() + sum(base) - clock.now()

    def _report(self) -> None:
        node, pod = self.node, self.pod
        self._said = self._status()
        for one in (*self._said.init_container_statuses, *self._said.container_statuses):
            newest = self.observed.newest(one.name)
            if (
                one.state.waiting.reason == sync.CRASH_LOOP
                and newest is not None
                and newest.id not in self._told
            ):
                self._told.add(newest.id)
                meta = pod.metadata
                said = f"{one.name} in pod {meta.name}_{meta.namespace}({meta.uid})"
                node.event(
                    pod, "Warning", "BackOff", f"Back-off restarting failed container {said}"
                )
        shown = pod if self.bound else self._mirror
        if shown is not None:
            # A mirror's generation is the API's own, not the file's.
            self._said.observed_generation = shown.metadata.generation
            node.report(shown, self._said)

    def _status(self, *, last: bool = False) -> pod_pb2.PodStatus:
        node = self.node
        now = status.Moment(node.clock.now(), node.clock.monotonic())
        return status.make(
            self.pod, self.observed, self.memory, node.around, now, self._said, last=last
        )

    # Doing.

    async def _do(self, pod: pod_pb2.Pod, step: sync.Step) -> None:
        runtime, memory = self.node.runtime, self.memory
        match step:
            case sync.Kill():
                self._kill(pod, step)
            case sync.Begin():
                await self._begin(pod, step)
            case sync.StopSandbox():
                await runtime.stop_pod_sandbox(step.id)
            case sync.RemoveSandbox():
                await runtime.remove_pod_sandbox(step.id)
            case sync.RemoveContainer():
                await runtime.remove_container(step.id)
                memory.taken.pop(step.name, None)
            case sync.RunSandbox():
                await self._try("", step.attempt, self._run_sandbox(pod, step))
            case sync.Start():
                await self._try(step.name, step.attempt, self._start(pod, step))

    def _kill(self, pod: pod_pb2.Pod, step: sync.Kill) -> None:
        now = self.node.clock.monotonic()
        until = now + step.grace_seconds
        if sync.ending(self.pod, self.memory) or sync.over(self.pod, self.observed):
            ends_at = self.memory.ends_at
            self.memory.ends_at = until if ends_at is None else min(until, ends_at)
        if step.id not in self.memory.killing:
            self.node.event(self.pod, "Normal", "Killing", step.why)
        self.memory.killing[step.id] = until
        work = self._stop(pod, step, until)
        self.node.tasks.supervise(work, self._grumble, f"kill {step.name}")

    def _grumble(self, error: Exception) -> None:
        log.error("%s: %r", self._name, error)

    async def _stop(self, pod: pod_pb2.Pod, step: sync.Kill, until: float) -> None:
        """Until a look at the runtime says that it has ended, or a shorter kill has begun."""
        node = self.node
        until = await self._pre_stop(pod, step, until)
        while self.memory.killing.get(step.id) == until:
            left = max(0, math.ceil(until - node.clock.monotonic()))
            try:
                await node.runtime.stop_container(step.id, left)
            except cri.CriError as error:
                log.warning("%s: %s", self._name, error)
            self._wake.set()
            await node.clock.sleep(AGAIN_SECONDS)

    # Hooks.

    def _place(self, pod: pod_pb2.Pod, spec: container_pb2.Container, id_: str) -> handler.Place:
        addresses = launch.facts(self.node, pod, self.observed).pod_addresses
        return handler.Place(self.node.runtime, id_, spec, addresses[0] if addresses else "")

    async def _begin(self, pod: pod_pb2.Pod, step: sync.Begin) -> None:
        spec = _spec(pod, step.name)
        if spec is None:
            return
        place, memory = self._place(pod, spec, step.id), self.memory
        answer = await handler.run(spec.lifecycle.post_start, place, self.node.clock, 0)
        before = memory.health_of(spec, step.id)
        if answer.is_success:
            memory.healths[step.id] = health.begin(spec, before)
            return
        said = f"PostStartHook failed: {answer.said}"
        self.node.event(pod, "Warning", "FailedPostStartHook", said)
        why = f"Container {step.name} failed its postStart hook"
        memory.healths[step.id] = health.condemn(before, why)

    async def _pre_stop(self, pod: pod_pb2.Pod, step: sync.Kill, until: float) -> float:
        """Runs the hook within the grace, once for all kills; answers when the grace ends then."""
        spec, node, memory = _spec(pod, step.name), self.node, self.memory
        if spec is None or not spec.lifecycle.HasField("pre_stop"):
            return until
        if step.id not in self._hooks:
            self._hooks[step.id] = node.tasks.supervise(
                self._run_pre_stop(pod, spec, step.id), self._grumble, f"preStop of {step.name}"
            )
        hook = self._hooks[step.id]
        await asyncio.wait([hook], timeout=max(0.0, until - node.clock.monotonic()))
        if memory.killing.get(step.id) != until:
            return until
        if not hook.done():
            hook.cancel()
            said = f"PreStopHook failed: it was not done within {step.grace_seconds} s"
            node.event(pod, "Warning", "FailedPreStopHook", said)
        # The container gets a moment of its own, once.
        memory.killing[step.id] = max(until, node.clock.monotonic() + sync.LEAST_GRACE_SECONDS)
        return memory.killing[step.id]

    async def _run_pre_stop(
        self, pod: pod_pb2.Pod, spec: container_pb2.Container, id_: str
    ) -> None:
        hook, clock = spec.lifecycle.pre_stop, self.node.clock
        answer = await handler.run(hook, self._place(pod, spec, id_), clock, 0)
        if not answer.is_success:
            said = f"PreStopHook failed: {answer.said}"
            self.node.event(pod, "Warning", "FailedPreStopHook", said)

    async def _try(self, name: str, attempt: int, work: Coroutine[Any, Any, None]) -> None:
        """Does it, or remembers why it can't be done now. `name` "": the sandbox."""
        memory, node = self.memory, self.node
        try:
            await work
        except launch.Failure as failure:
            said = failure.message if not name else f"Error: {failure.message}"
            node.event(self.pod, "Warning", failure.event, said)
            if failure.is_taken:
                # By a call that was thought lost. Its outcome is seen by now, or never.
                memory.taken[name] = attempt
            soon = failure.reason in _SOON
            memory.problems[name] = sync.problem(
                memory.problems.get(name),
                failure.reason,
                failure.message,
                node.clock.monotonic(),
                first_seconds=SOON_SECONDS if soon else sync.FIRST_DELAY_SECONDS,
                most_seconds=LATER_SECONDS if soon else sync.MOST_DELAY_SECONDS,
            )

    async def _run_sandbox(self, pod: pod_pb2.Pod, step: sync.RunSandbox) -> None:
        async with self.node.starts:
            await launch.sandbox(self.node, pod, self.observed, step.attempt)
        self.memory.problems.pop("", None)
        self.memory.taken.pop("", None)

    async def _start(self, pod: pod_pb2.Pod, step: sync.Start) -> None:
        spec = _spec(pod, step.name)
        if spec is None:
            return
        there = await self._images.get(pod, spec)
        if there is None:
            return
        async with self.node.starts:
            await launch.container(self.node, pod, self.observed, step, spec, there)
        self.memory.problems.pop(step.name, None)
        self.memory.taken.pop(step.name, None)

    # Looking after volumes.

    async def _tend(self, now: float) -> None:
        """Volumes follow their objects, and stay within their limits."""
        pod, node = self.pod, self.node
        follows, is_limited = volume.follows(pod), volume.is_limited(pod)
        if sync.ending(pod, self.memory) or not (follows or is_limited):
            return
        least, most = RENEW_SECONDS
        # Each pod at moments of its own.
        period: float = least + zlib.crc32(pod.metadata.uid.encode()) % (most - least)
        if is_limited:
            period = min(period, MEASURE_SECONDS)
        if self._tend_at is None:
            self._tend_at = now + period
        elif now >= self._tend_at:
            self._tend_at = now + period
            if follows:
                await self._renew(pod)
            if is_limited:
                said = await launch.on_disk(lambda: volume.overfull(pod, node.root))
                if said:
                    self._fail("Evicted", said)
                    self._tend_at = now
        self.again_at = min(
            self._tend_at, self._tend_at if self.again_at is None else self.again_at
        )

    async def _renew(self, pod: pod_pb2.Pod) -> None:
        node = self.node
        try:
            named = await node.named(pod)
            known = launch.facts(node, pod, self.observed)
            await launch.on_disk(lambda: volume.renew(pod, named, known, node.root))
        except ApiError as error:
            # Next time.
            log.info("%s: volumes stay as they are: %s", self._name, error)
        except (volume.VolumeError, OSError) as error:
            node.event(pod, "Warning", "FailedMount", str(error))

    # Ending.

    async def _finish(self) -> None:
        """Takes away what the pod left, lets its object go, and last of all what tells of it.

        Whoever comes after a crash in between finds in the runtime how the containers ended, until
        the API has been told.
        """
        self._finishing = True
        node, pod = self.node, self.pod
        last = self._status(last=True)
        for box in self.observed.sandboxes:
            await node.runtime.stop_pod_sandbox(box.id)
        await launch.on_disk(lambda: _remove_files(node, pod))
        if self.bound:
            await node.finished(pod, last)
        await launch.on_disk(lambda: _remove_logs(node, pod))
        boxes = {box.id for box in self.observed.sandboxes}
        for one in self.observed.containers:
            if one.sandbox not in boxes:
                await node.runtime.remove_container(one.id)
        for box in self.observed.sandboxes:
            await node.runtime.remove_pod_sandbox(box.id)


def _spec(pod: pod_pb2.Pod, name: str) -> container_pb2.Container | None:
    return next((one for one in sync.every(pod) if one.name == name), None)


def _remove_files(node: Node, pod: pod_pb2.Pod) -> None:
    with contextlib.suppress(refusal.Refused):
        refusal.names(pod)
        volume.remove(node.root, pod.metadata.uid)
        _remove_cgroups(pod.metadata.uid)


def _remove_logs(node: Node, pod: pod_pb2.Pod) -> None:
    with contextlib.suppress(refusal.Refused):
        refusal.names(pod)
        shutil.rmtree(container.log_directory(node.logs, pod), ignore_errors=True)


def _remove_cgroups(uid: str) -> None:
    """The runtime makes a pod's cgroups under every controller, and leaves them."""
    for pattern in (f"kcore/*/pod{uid}", f"*/kcore/*/pod{uid}"):
        for found in sorted(_CGROUPS.glob(pattern)):
            with contextlib.suppress(OSError):
                found.rmdir()
