"""`kcore store`: where a cluster's log is kept."""

import click

from kcore.boot import stores
from kcore.cli.session import FAILED, Exit, Session

_STEP = 0.05


@click.group()
def store() -> None:
    """Look after a cluster's store, while its apiservers are stopped."""


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
