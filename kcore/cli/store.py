"""`kcore store`: where a cluster's log is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kcore.boot import place, stores
from kcore.cli.session import FAILED, Exit, Session

_STEP = 0.05


@click.group()
def store() -> None:
    """Look after a cluster's store."""


@store.command()
@click.option("--from", "source", required=True, metavar="STORE", help="Where the log is.")
@click.option("--to", "target", required=True, metavar="STORE", help="An empty store.")
@click.pass_obj
async def migrate(session: Session, source: str, target: str) -> None:
    """Move everything from one store to another, and read it back.

    STORE is sqlite:PATH or etcd:https://HOST:PORT[,...][?ca=FILE&cert=FILE&key=FILE]. Revisions,
    uids, the cluster's identity and the past as far as it is kept stay what they are; the source is
    left as it is. All apiservers of the cluster must be stopped.

    \b
    kcore store migrate --from sqlite:/var/lib/kcore/store/kcore.db --to etcd:http://127.0.0.1:2379
    """
    said = 0.0

    def progress(revision: int, head: int) -> None:
        nonlocal said
        share = revision / head if head else 1.0
        if share - said >= _STEP:
            said = share
            session.say(f"revision {revision} of {head} ({share:.0%})")

    try:
        moved = await stores.move(source, target, session.clock, session.chance, progress)
    except stores.StoreError as error:
        raise Exit(FAILED, f"error: {error}") from error
    of = moved.opened
    past = f"since revision {of.compacted}" if of.compacted else "from the beginning"
    session.say(
        f"cluster {of.cluster_id} (epoch {of.epoch}) is in {target} up to revision {of.head}: "
        f"{moved.objects} objects, {moved.records} records, the past {past}; read back, all equal"
    )
    session.say(f"do not start an apiserver on {source} again: the two would go different ways")


def _where(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--root", type=click.Path(path_type=Path), default=None, help="As given to `kcore up`."
    )(function)


@click.command()
@_where
@click.argument("database", type=click.Path(path_type=Path), required=False)
@click.pass_obj
async def check(session: Session, root: Path | None, database: Path | None) -> int:
    """Walk the log of this machine's cluster, or of a copy, and name all that is damaged.

    It only reads, and may be run while the cluster is. Exit code 1: something is damaged.

    \b
    kcore check
    kcore check backup.db
    """
    path = database or place.Place.under(root).database
    faults, said = stores.check(path)
    for fault in faults:
        session.out(fault)
    if faults:
        session.say(
            f"{path}: {len(faults)} found; `kcore store restore` puts a backup in its place"
        )
        return FAILED
    session.say(f"{path}: all is as it was written ({said})")
    return 0


@store.command()
@_where
@click.argument("copy", type=click.Path(path_type=Path))
@click.pass_obj
async def backup(session: Session, root: Path | None, copy: Path) -> None:
    """Copy the log of this machine's cluster into a new file, while it is served or not.

    \b
    kcore store backup monday.db
    """
    try:
        said = stores.backup(place.Place.under(root).database, copy)
    except stores.StoreError as error:
        raise Exit(FAILED, f"error: {error}") from error
    session.say(f"{copy}: {said}")


@store.command()
@_where
@click.argument("copy", type=click.Path(path_type=Path))
@click.pass_obj
async def restore(session: Session, root: Path | None, copy: Path) -> None:
    """Go back to a backup, on purpose: what was written since is gone.

    No apiserver may run on this machine. The log's epoch grows, by which nodes and controllers know
    that the past has changed, and begin anew.

    \b
    kcore store restore monday.db
    """
    database = place.Place.under(root).database
    try:
        said = stores.restore(copy, database)
    except stores.StoreError as error:
        raise Exit(FAILED, f"error: {error}") from error
    session.say(f"{database}: {said}")
