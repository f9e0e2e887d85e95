"""`kcore apply`: objects become as manifests say, by server-side apply with field owners."""

from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.message import Message

from kcore.cli import objects, options, output, submit
from kcore.cli.report import Report
from kcore.cli.session import Session


@click.command()
@options.filenames
@options.namespace
@options.dry_run
@options.output
@options.selector
@options.manager
@click.option("-k", "--kustomize", "kustomization", default="", hidden=True)
@click.option("--server-side", is_flag=True, help="Leave fields alone that others own.")
@click.option("--force-conflicts", is_flag=True, help="With --server-side: take them.")
@click.option("--wait", "waits", is_flag=True, help="Wait until all is ready; else exit code 3.")
@click.option("--timeout", type=options.SECONDS, default=300.0, help="With --wait: how long.")
@click.pass_obj
async def apply(
    session: Session,
    filenames: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    form: str,
    server_side: bool,
    force_conflicts: bool,
    manager: str,
    labels: str,
    kustomization: str,
    waits: bool,
    timeout: float,
) -> int:
    """Make objects be as manifests say.

    \b
    kcore apply -f web.yaml
    kcore apply -R -f manifests/ --wait
    """
    form = output.check(form)
    if kustomization:
        raise click.UsageError(
            f"there is no kustomize in here: kustomize build {kustomization} | kcore apply -f -"
        )
    manifests = submit.selected(
        await submit.load(session, filenames, recursive, named=True), labels
    )
    before = await submit.before(session, manifests)
    force = force_conflicts or not server_side
    if dry_run == "client":
        outcomes = [submit.Outcome(one, one.message, True) for one in manifests]
    else:
        outcomes = await submit.submit(
            session,
            manifests,
            lambda one: submit.apply_operation(one, force),
            dry_run=dry_run == "server",
            manager=manager,
        )
    code = 0
    report = Report(session, form, dry_run)
    for outcome, old in zip(outcomes, before, strict=True):
        if outcome.message is None:
            code = max(code, submit.complain(session, outcome))
            continue
        word = "serverside-applied" if server_side else _word(outcome, old)
        report.add(outcome.manifest.kind, outcome.message, word)
    report.end(one=len(manifests) == 1)
    if waits and not code and dry_run == "none":
        session.stdout.flush()
        await _wait(session, outcomes, timeout)
    return code


def _word(outcome: submit.Outcome, old: Message | None) -> str:
    if old is None:
        return "created"
    assert outcome.message is not None
    if not outcome.changed or _seen(old) == _seen(outcome.message):
        return "unchanged"
    return "configured"


def _seen(message: Message) -> Message:
    """The object without what tells only of the writing: who set a field is no change to it."""
    seen = type(message)()
    seen.CopyFrom(message)
    metadata = objects.metadata(seen)
    for name in ("managed_fields", "resource_version"):
        metadata.ClearField(name)
    return seen


async def _wait(
    session: Session, outcomes: Sequence[submit.Outcome], timeout_seconds: float
) -> None:
    from kcore.cli import follow, rollouts
    from kcore.cli.session import FAILED, Exit

    last = ""

    async def all_ready() -> None:
        nonlocal last
        for outcome in outcomes:
            kind, message = outcome.manifest.kind, outcome.message
            assert message is not None
            state = rollouts.state(kind, output.plain(message))

            def final(now: Message | None, kind: Any = kind) -> bool:
                nonlocal state, last
                if now is None:
                    return True
                state = rollouts.state(kind, output.plain(now))
                if state.said != last and not state.done:
                    session.say(state.said)
                last = state.said
                return state.done or state.failed

            metadata = objects.metadata(message)
            await follow.until(session, kind, metadata.namespace, metadata.name, final)
            if state.failed:
                raise Exit(FAILED, f"error: {state.said}")

    await follow.within(all_ready(), timeout_seconds, lambda: f"error: timed out: {last}")
