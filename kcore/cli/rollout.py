"""`kcore rollout`: follow, undo, pause, resume and restart what rolls out pods of a template.

Which kinds can is decided by their shape: `spec.template` can be restarted, `spec.paused` paused,
and old templates are found in the objects that an object owns and that carry the annotation
`deployment.kubernetes.io/revision`, or that keep a patch for it and a `revision`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import follow, objects, options, output, rollouts, subject
from kcore.cli.report import DRY
from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.table import Table
from kcore.client import codec
from kcore.client.kinds import Kind
from kcore.wire.errors import ApiError, Reason

REVISION: Final = "deployment.kubernetes.io/revision"
CAUSE: Final = "kubernetes.io/change-cause"
RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
# The label that tells templates' pods apart; no part of the template that somebody wrote.
HASH: Final = "pod-template-hash"
_ATTEMPTS: Final = 5


@click.group()
def rollout() -> None:
    """Follow, undo, pause and restart a rollout."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A template that was, and why it came to be."""

    template: Message
    cause: str


@dataclass(frozen=True, slots=True)
class _Found:
    kind: Kind
    message: Message

    @property
    def name(self) -> str:
        return output.name(self.kind, self.message)

    @property
    def said(self) -> str:
        return f'{self.kind.options.singular} "{objects.metadata(self.message).name}"'

    @property
    def spec(self) -> Any:
        return getattr(self.message, "spec")  # noqa: B009 - of a type known only at run time


async def _one(session: Session, words: tuple[str, ...], needs: str, verb: str) -> _Found:
    """The object that is named, if its kind has what the verb needs."""
    found = await _several(session, words, needs, verb)
    if len(found) != 1:
        raise click.UsageError("name one object, such as deploy/web")
    return found[0]


async def _several(
    session: Session, words: tuple[str, ...], needs: str, verb: str, labels: str = ""
) -> list[_Found]:
    """The objects that are named or, of a kind, selected; of kinds that have what is needed."""
    found: list[_Found] = []
    for asked in subject.parse(words, await session.kinds()):
        kind = asked.kind
        if not rollouts.has(kind, needs):
            raise click.UsageError(f"{kind.options.plural} cannot be {verb}")
        if asked.name:
            message = await objects.get(session, kind, session.namespace, asked.name)
            found.append(_Found(kind, message))
            continue
        if not labels:
            raise click.UsageError("name an object, such as deploy/web, or select some with -l")
        listing = await objects.listing(session, kind, session.namespace, labels=labels)
        found += [_Found(kind, message) for message in listing.items]
    return found


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME")
@options.namespace
@click.option("-w/-W", "--watch/--no-watch", "watch", default=True, help="Until it ends.")
@click.option("--timeout", type=options.SECONDS, default=0.0, help="How long; 0: for ever.")
@click.pass_obj
async def status(session: Session, words: tuple[str, ...], watch: bool, timeout: float) -> int:
    """Follow a rollout until it ends.

    \b
    kcore rollout status deploy/web --timeout=2m
    """
    found = await _one(session, words, "spec.template.spec", "rolled out")
    kind, metadata = found.kind, objects.metadata(found.message)
    state = rollouts.state(kind, codec.to_plain(found.message))
    if watch and not state.done and not state.failed:
        session.out(state.said)
        session.stdout.flush()

        def final(now: Message | None) -> bool:
            nonlocal state
            if now is None:
                return True
            last, state = state, rollouts.state(kind, codec.to_plain(now))
            if not (state.done or state.failed) and state.said != last.said:
                session.out(state.said)
                session.stdout.flush()
            return state.done or state.failed

        end = await follow.within(
            follow.until(session, kind, metadata.namespace, metadata.name, final),
            timeout or None,
            lambda: f"error: timed out: {state.said}",
        )
        if end is None:
            raise Exit(FAILED, f"error: {found.said} was deleted")
    if state.failed:
        raise Exit(FAILED, f"error: {state.said}")
    session.out(state.said)
    return 0


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME")
@options.namespace
@click.option("--revision", type=click.IntRange(min=1), help="Show the template of this one.")
@click.pass_obj
async def history(session: Session, words: tuple[str, ...], revision: int | None) -> int:
    """List the revisions of a rollout.

    \b
    kcore rollout history deploy/web
    """
    found = await _one(session, words, "spec.template.spec", "rolled out")
    known = await _revisions(session, found)
    if revision is not None:
        if revision not in known:
            raise Exit(FAILED, f"error: {found.said} has no revision {revision}")
        from kcore.client import yaml_writer

        session.out(f"{found.name} with revision #{revision}")
        template = codec.to_plain(known[revision].template)
        session.stdout.write(yaml_writer.write({"template": template}))
        return 0
    session.out(found.name)
    rows = []
    for number in sorted(known):
        rows.append([str(number), known[number].cause or "<none>"])
    for line in Table(["REVISION", "CHANGE-CAUSE"]).lines(rows):
        session.out(line)
    return 0


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME")
@options.namespace
@options.dry_run
@click.option("--to-revision", type=click.IntRange(min=0), default=0, help="0: the one before.")
@click.pass_obj
async def undo(session: Session, words: tuple[str, ...], dry_run: str, to_revision: int) -> int:
    """Go back to an earlier template.

    \b
    kcore rollout undo deploy/web
    """
    for attempt in range(_ATTEMPTS):
        found = await _one(session, words, "spec.template.spec", "rolled back")
        kind = found.kind
        if rollouts.has(kind, "spec.paused") and found.spec.paused:
            raise Exit(
                FAILED,
                f"error: {found.said} is paused; `kcore rollout resume {found.name}` first",
            )
        known = await _revisions(session, found)
        number = _previous(found, known, to_revision)
        old = known[number].template
        if codec.to_plain(old) == codec.to_plain(found.spec.template):
            session.out(
                f"{found.name} skipped rollback"
                f" (current template already matches revision {number})"
            )
            return 0

        def fill(wanted: Any, old: Message = old) -> None:
            # Of two kinds the template is one type; of two pools it is one form.
            wanted.spec.template.MergeFromString(old.SerializeToString())

        patch = objects.merge(kind, ["spec.template"], fill)
        if await _patch(session, found, patch, dry_run, attempt):
            break
    session.out(f"{found.name} rolled back{DRY[dry_run]}")
    return 0


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME")
@options.namespace
@options.dry_run
@click.pass_obj
async def pause(session: Session, words: tuple[str, ...], dry_run: str) -> int:
    """Let changes of the template wait.

    \b
    kcore rollout pause deploy/web
    """
    return await _set_paused(session, words, dry_run, paused=True)


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME")
@options.namespace
@options.dry_run
@click.pass_obj
async def resume(session: Session, words: tuple[str, ...], dry_run: str) -> int:
    """Go on with what was paused.

    \b
    kcore rollout resume deploy/web
    """
    return await _set_paused(session, words, dry_run, paused=False)


async def _set_paused(
    session: Session, words: tuple[str, ...], dry_run: str, *, paused: bool
) -> int:
    word = "paused" if paused else "resumed"
    found = await _one(session, words, "spec.paused", word)
    if bool(found.spec.paused) == paused:
        raise Exit(FAILED, f"error: {found.said} is {'already' if paused else 'not'} paused")

    def fill(wanted: Any) -> None:
        wanted.spec.paused = paused

    patch = objects.merge(found.kind, ["spec.paused"], fill)
    await _patch(session, found, patch, dry_run, _ATTEMPTS, guarded=False)
    session.out(f"{found.name} {word}{DRY[dry_run]}")
    return 0


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND/NAME... | KIND -l SELECTOR")
@options.namespace
@options.selector
@options.dry_run
@click.pass_obj
async def restart(session: Session, words: tuple[str, ...], labels: str, dry_run: str) -> int:
    """Replace all pods by new ones of the same template.

    \b
    kcore rollout restart deploy/web
    """
    several = await _several(session, words, "spec.template.metadata", "restarted", labels)
    if not several:
        raise Exit(FAILED, f"No resources found in {session.namespace} namespace.")
    now = datetime.fromtimestamp(session.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    code = 0

    def fill(wanted: Any) -> None:
        wanted.spec.template.metadata.annotations[RESTARTED] = now

    for found in several:
        if rollouts.has(found.kind, "spec.paused") and found.spec.paused:
            session.say(f"error: {found.said} is paused; `kcore rollout resume {found.name}` first")
            code = FAILED
            continue
        path = f"spec.template.metadata.annotations.{RESTARTED}"
        patch = objects.merge(found.kind, [path], fill)
        await _patch(session, found, patch, dry_run, _ATTEMPTS, guarded=False)
        session.out(f"{found.name} restarted{DRY[dry_run]}")
    return code


async def _patch(
    session: Session,
    found: _Found,
    patch: pb.Patch,
    dry_run: str,
    attempt: int,
    *,
    guarded: bool = True,
) -> bool:
    """Commits the patch; False where the object has changed since and another try is left."""
    if dry_run == "client":
        return True
    ref = objects.ref(found.kind, found.message)
    guards = [objects.guard(found.kind, found.message)] if guarded else []
    try:
        await objects.change(
            session, pb.Operation(ref=ref, patch=patch), guards, dry_run=dry_run == "server"
        )
    except ApiError as error:
        if error.reason is Reason.CONFLICT and guarded and attempt < _ATTEMPTS - 1:
            return False
        raise
    return True


async def _revisions(session: Session, found: _Found) -> dict[int, _Kept]:
    """The object's templates, by revision."""
    catalogue = await session.kinds()
    owner = objects.metadata(found.message)
    labels = selector_text(codec.to_plain(found.spec.selector))
    known: dict[int, _Kept] = {}
    for kind in catalogue.kinds:
        keeps = rollouts.has(kind, "spec.template.spec") or rollouts.has(kind, "data.raw")
        if kind is found.kind or not keeps:
            continue
        listing = await objects.listing(session, kind, owner.namespace, labels=labels)
        for message in listing.items:
            metadata = objects.metadata(message)
            if owner.uid in {o.uid for o in metadata.owner_references if o.controller}:
                for number, template in _templates(found, message):
                    known[number] = _Kept(template, metadata.annotations.get(CAUSE, ""))
    return known


def selector_text(plain: dict[str, Any]) -> str:
    """A label selector (or a map of labels) as the text that lists take."""
    if "matchLabels" not in plain and "matchExpressions" not in plain:
        return ",".join(f"{k}={v}" for k, v in sorted(plain.items()))
    parts = [f"{k}={v}" for k, v in sorted((plain.get("matchLabels") or {}).items())]
    for expression in plain.get("matchExpressions") or []:
        key, operator = expression.get("key", ""), expression.get("operator", "")
        values = ",".join(expression.get("values") or [])
        parts.append(
            {
                "Exists": key,
                "DoesNotExist": f"!{key}",
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
            }[operator]
        )
    return ",".join(parts)


def _templates(found: _Found, keeper: Any) -> Iterator[tuple[int, Message]]:
    """The template that an object keeps, as somebody wrote it, with its revision."""
    number = objects.metadata(keeper).annotations.get(REVISION, "")
    if number.isdecimal():
        made = type(keeper.spec.template)()
        made.CopyFrom(keeper.spec.template)
        made.metadata.labels.pop(HASH, None)
        yield int(number), made
    elif "revision" in keeper.DESCRIPTOR.fields_by_name:
        plain = json.loads(keeper.data.raw or b"{}").get("spec", {}).get("template")
        if isinstance(plain, dict):
            plain.pop("$patch", None)
            yield keeper.revision, codec.from_plain(found.spec.template.DESCRIPTOR, plain)


def _previous(found: _Found, known: dict[int, _Kept], asked: int) -> int:
    """The revision to go back to."""
    if asked:
        if asked not in known:
            have = ", ".join(str(n) for n in sorted(known)) or "none"
            raise Exit(FAILED, f"error: {found.said} has no revision {asked}; there are: {have}")
        return asked
    if len(known) < 2:
        raise Exit(FAILED, f"error: {found.said} has no earlier revision")
    return sorted(known)[-2]
