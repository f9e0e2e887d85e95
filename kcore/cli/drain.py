"""`kcore drain`: all pods leave a node, as far as budgets allow, so that it can be worked on.

The node is cordoned; pods are looked over before the first is touched, and if one may not go, none
does. They are evicted side by side; whom a budget holds back is asked again. Those that come back
by themselves (DaemonSets', mirrors of a kubelet's files) stay.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import cordon, follow, objects, options, output, pod
from kcore.cli.report import DRY
from kcore.cli.session import FAILED, NOT_READY, Exit, Session
from kcore.client.kinds import Kind
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason

AGAIN_SECONDS: Final = 5.0
_MIRROR: Final = "kubernetes.io/config.mirror"
# Waiting at once.
_MOST_WATCHES: Final = 32
_DAEMONS = "DaemonSet-managed Pods"
_LOCAL = "Pods with local storage"
_BARE = "Pods that declare no controller"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was said on the command line."""

    force: bool
    ignore_daemonsets: bool
    delete_emptydir_data: bool
    disable_eviction: bool
    grace_seconds: int
    dry_run: str


@dataclass(slots=True)
class _Plan:
    """The pods of a node, looked over."""

    pods: list[Message] = field(default_factory=list)
    # By what is to be said of them: pods as namespace/name.
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)


@click.command()
@click.argument("names", nargs=-1, metavar="NODE...")
@options.selector
@click.option("--ignore-daemonsets", is_flag=True, help="Leave DaemonSets' pods where they are.")
@click.option("--delete-emptydir-data", is_flag=True, help="Also pods that lose emptyDir volumes.")
@click.option("--force", is_flag=True, help="Also pods that nobody will make anew.")
@click.option("--grace-period", type=int, default=-1, help="Seconds to end in; -1: their own.")
@click.option("--timeout", type=options.SECONDS, default=0.0, help="How long; 0: for ever.")
@click.option("--pod-selector", default="", help="Only pods with these labels: app=web,!old.")
@click.option("--disable-eviction", is_flag=True, help="Delete, past budgets.")
@options.dry_run
@click.pass_obj
async def drain(
    session: Session,
    names: tuple[str, ...],
    labels: str,
    ignore_daemonsets: bool,
    delete_emptydir_data: bool,
    force: bool,
    grace_period: int,
    timeout: float,
    pod_selector: str,
    disable_eviction: bool,
    dry_run: str,
) -> int:
    """Send all pods away from nodes, and let no new ones come.

    Pods are evicted: PodDisruptionBudgets are kept, however long that takes. `kcore uncordon`
    opens the node again.

    \b
    kcore drain n1 --ignore-daemonsets
    kcore drain n1 --ignore-daemonsets --delete-emptydir-data --force --timeout=5m
    """
    wish = _Wish(
        force,
        ignore_daemonsets,
        delete_emptydir_data,
        disable_eviction,
        grace_period,
        dry_run,
    )
    nodes = await cordon.nodes(session, names, labels)
    await cordon.close(session, nodes, True, dry_run)
    left: list[str] = []
    problems: list[str] = []
    for kind, node in nodes:
        name = objects.metadata(node).name
        plan = await _look(session, name, pod_selector, wish)
        if plan.errors:
            found = [_line(f"cannot delete {said}", who) for said, who in plan.errors.items()]
            why = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
            more = ", continuing command..." if len(nodes) > 1 else ""
            session.say(f'error: unable to drain node "{name}" due to error: {why}{more}')
            left.append(name)
            problems += found
            continue
        for said, who in plan.warnings.items():
            session.say(f"Warning: {_line(said, who)}")
        session.stdout.flush()
        await _away(session, plan.pods, wish, timeout)
        session.out(f"{output.name(kind, node)} drained{DRY[dry_run]}")
    if left:
        session.say("There are pending nodes to be drained:")
        for name in left:
            session.say(f" {name}")
        for problem in problems:
            session.say(problem)
    return FAILED if left else 0


# Which pods.


def _line(said: str, names: Sequence[str]) -> str:
    """ "ignoring DaemonSet-managed Pods: a/b, c/d"."""
    return f"{said}: {', '.join(names)}"


async def _look(session: Session, node: str, labels: str, wish: _Wish) -> _Plan:
    """Which pods go, and what there is to say against it."""
    kind = await pod.kind(session)
    listing = await objects.listing(
        session, kind, "", labels=labels, fields=f"spec.nodeName={node}"
    )
    plan = _Plan()
    for each in listing.items:
        if await _goes(session, each, plan, wish):
            plan.pods.append(each)
    return plan


async def _goes(session: Session, message: Message, plan: _Plan, wish: _Wish) -> bool:
    """Whether the pod is to go; notes what is to be said of it."""
    each: Any = message
    name = f"{each.metadata.namespace}/{each.metadata.name}"
    over = each.status.phase in pod.OVER
    manager = next((one for one in each.metadata.owner_references if one.controller), None)
    if _MIRROR in each.metadata.annotations:
        return False
    if manager is not None and manager.kind == "DaemonSet" and not over:
        if await _is_there(session, manager, each.metadata.namespace):
            if wish.ignore_daemonsets:
                plan.warnings.setdefault(f"ignoring {_DAEMONS}", []).append(name)
            else:
                hint = f"{_DAEMONS} (use --ignore-daemonsets to ignore)"
                plan.errors.setdefault(hint, []).append(name)
            return False
        # Nobody will make it anew.
        manager = None
    if over:
        return True
    goes = True
    if any(volume.volume_source.HasField("empty_dir") for volume in each.spec.volumes):
        if wish.delete_emptydir_data:
            plan.warnings.setdefault(f"deleting {_LOCAL}", []).append(name)
        else:
            hint = f"{_LOCAL} (use --delete-emptydir-data to override)"
            plan.errors.setdefault(hint, []).append(name)
            goes = False
    if manager is None:
        if wish.force:
            plan.warnings.setdefault(f"deleting {_BARE}", []).append(name)
        else:
            hint = f"{_BARE} (use --force to override)"
            plan.errors.setdefault(hint, []).append(name)
            goes = False
    return goes


async def _is_there(session: Session, manager: Any, namespace: str) -> bool:
    kind = (await session.kinds()).of_type(manager.api_version, manager.kind)
    found = await objects.find(session, kind, namespace, manager.name)
    return found is not None and objects.metadata(found).uid == manager.uid


# Away with them.


async def _away(session: Session, pods: Sequence[Message], wish: _Wish, timeout: float) -> None:
    """Evicts them side by side, and waits until they are gone."""
    waiting = {f"{objects.metadata(each).namespace}/{objects.metadata(each).name}" for each in pods}
    kind = await pod.kind(session)
    watches = asyncio.Semaphore(_MOST_WATCHES)

    async def one(each: Message) -> None:
        meta = objects.metadata(each)
        if await _evict(session, kind, each, wish):
            async with watches:
                await _gone(session, kind, each)
            word = "deleted" if wish.disable_eviction else "evicted"
            session.out(f"pod/{meta.name} {word}")
            session.stdout.flush()
        waiting.discard(f"{meta.namespace}/{meta.name}")

    try:
        async with asyncio.timeout(timeout or None), Tasks() as tasks:
            for each in pods:
                tasks.start(one(each), objects.metadata(each).name)
    except TimeoutError:
        names = ", ".join(sorted(waiting))
        said = f"error: these pods are still there: {names}: global timeout reached: {timeout:g}s"
        raise Exit(NOT_READY, said) from None
    except ExceptionGroup as failures:
        # The first one ends them all.
        raise failures.exceptions[0] from None


async def _evict(session: Session, kind: Kind, each: Message, wish: _Wish) -> bool:
    """Asks until it is granted; whether there is an end to wait for."""
    meta = objects.metadata(each)
    name = f"{meta.namespace}/{meta.name}"
    deletion = pb.Delete(uid=meta.uid)
    if wish.grace_seconds >= 0:
        deletion.grace_seconds = wish.grace_seconds
    door = "" if wish.disable_eviction else "eviction"
    operation = pb.Operation(ref=objects.ref(kind, each), subresource=door, delete=deletion)
    verb = "deleting" if wish.disable_eviction else "evicting"
    while True:
        session.out(f"{verb} pod {name}{DRY[wish.dry_run]}")
        session.stdout.flush()
        if wish.dry_run == "client":
            return False
        try:
            await objects.change(session, operation, dry_run=wish.dry_run == "server")
        except ApiError as error:
            if error.reason in (Reason.NOT_FOUND, Reason.CONFLICT):
                # It is gone; a namesake is another one.
                return False
            if error.reason is not Reason.EXHAUSTED:
                where = f'pods/"{meta.name}" -n "{meta.namespace}"'
                said = f"error when {verb} {where}: {error.message}"
                raise ApiError(error.reason, said) from None
            session.say(
                f'error when {verb} pods/"{meta.name}" -n "{meta.namespace}"'
                f" (will retry after {AGAIN_SECONDS:g}s): {error.message}"
            )
            await session.clock.sleep(AGAIN_SECONDS)
        else:
            return wish.dry_run == "none"


async def _gone(session: Session, kind: Kind, each: Message) -> None:
    meta = objects.metadata(each)

    def gone(now: Message | None) -> bool:
        return now is None or objects.metadata(now).uid != meta.uid

    if not gone(await objects.find(session, kind, meta.namespace, meta.name)):
        await follow.until(session, kind, meta.namespace, meta.name, gone)
