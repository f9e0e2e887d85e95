"""`kcore taint`: marks on nodes that keep pods away: `key=value:Effect` sets, `key-` removes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import cordon, objects, options, output
from kcore.cli.report import Report
from kcore.cli.session import FAILED, Session
from kcore.client.kinds import Kind
from kcore.client.problem import meant

EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_KINDS: Final = ("node", "nodes", "no")


@dataclass(frozen=True, slots=True)
class _Change:
    """What a word asks for. Of those to be removed, "" means any effect."""

    key: str
    value: str
    effect: str
    remove: bool


@click.command()
@click.argument("words", nargs=-1, metavar="nodes NODE... KEY=VALUE:EFFECT... KEY[:EFFECT]-...")
@options.selector
@click.option("--all", "all_", is_flag=True, help="All nodes.")
@click.option("--overwrite", is_flag=True, help="Replace other values, too.")
@options.dry_run
@options.output
@options.manager
@click.pass_obj
async def taint(
    session: Session,
    words: tuple[str, ...],
    labels: str,
    all_: bool,
    overwrite: bool,
    dry_run: str,
    form: str,
    manager: str,
) -> int:
    """Set and remove taints of nodes. NoSchedule keeps new pods away that do not tolerate it,
    PreferNoSchedule does if it can be helped; NoExecute drives out those that are there, too.

    \b
    kcore taint nodes n1 dedicated=db:NoSchedule
    kcore taint nodes n1 dedicated=web:NoSchedule --overwrite
    kcore taint nodes n1 dedicated:NoSchedule-
    kcore taint nodes --all dedicated-
    """
    form = output.check(form)
    names, changes = _read(words)
    code = 0
    report = Report(session, form, dry_run)
    found = await cordon.nodes(session, names, labels, all_=all_)
    for kind, message in found:
        problem = _problem(message, changes, overwrite)
        if problem:
            session.say(f"error: {problem}")
            code = FAILED
            continue
        result = await _write(session, kind, message, changes, dry_run, manager)
        report.add(kind, result, _word(changes))
    report.end(one=len(found) == 1)
    return code


def _read(words: Sequence[str]) -> tuple[list[str], list[_Change]]:
    """Names of nodes, and what is to be changed of them."""
    if not words:
        raise click.UsageError("say which nodes, and which taints: nodes n1 key=value:NoSchedule")
    rest = list(words)
    if rest[0] in _KINDS:
        rest = rest[1:]
    elif not rest[0].startswith(tuple(f"{each}/" for each in _KINDS)):
        raise click.UsageError(f'only nodes have taints, "{rest[0]}" is none: kcore taint nodes …')
    names = [word for word in rest if not _is_change(word)]
    changes = [_change(word) for word in rest if _is_change(word)]
    if not changes:
        raise click.UsageError("say which taints: key=value:NoSchedule sets one, key- removes it")
    _refuse_contradictions(changes)
    return names, changes


def _is_change(word: str) -> bool:
    return "=" in word or ":" in word or word.endswith("-")


def _change(word: str) -> _Change:
    remove = word.endswith("-")
    said, _, effect = word.removesuffix("-").partition(":")
    key, _, value = said.partition("=")
    if not key:
        raise click.UsageError(f'"{word}" has no key')
    if (effect or not remove) and effect not in EFFECTS:
        known = ", ".join(EFFECTS)
        raise click.UsageError(
            f'"{word}": the effect is {known}, not "{effect}"{meant(effect, EFFECTS)}'
            if effect
            else f'"{word}" has no effect: {word}:NoSchedule; there are {known}'
        )
    return _Change(key, value, effect, remove)


def _refuse_contradictions(changes: Iterable[_Change]) -> None:
    removed = {(each.key, each.effect) for each in changes if each.remove}
    seen: set[tuple[str, str]] = set()
    for each in changes:
        if each.remove:
            continue
        if (each.key, each.effect) in seen:
            raise click.UsageError(f"{each.key}:{each.effect} is set twice")
        seen.add((each.key, each.effect))
        if (each.key, each.effect) in removed or (each.key, "") in removed:
            raise click.UsageError(f"{each.key}:{each.effect} is both set and removed")


def _problem(message: Message, changes: Sequence[_Change], overwrite: bool) -> str:
    """Why the node is not changed, if it is not."""
    node: Any = message
    there = {(each.key, each.effect): each.value for each in node.spec.taints}
    name = node.metadata.name
    taken = [
        each.key
        for each in changes
        if not each.remove and there.get((each.key, each.effect), each.value) != each.value
    ]
    if taken and not overwrite:
        return (
            f"node {name} already has {', '.join(taken)} taint(s) with same effect(s)"
            " and --overwrite is false"
        )
    for each in changes:
        if each.remove and not any(_is_meant(each, *one) for one in there):
            said = f"{each.key}:{each.effect}" if each.effect else each.key
            return f'taint "{said}" not found on node {name}'
    return ""


def _is_meant(change: _Change, key: str, effect: str) -> bool:
    return change.key == key and change.effect in ("", effect)


async def _write(
    session: Session,
    kind: Kind,
    message: Message,
    changes: Sequence[_Change],
    dry_run: str,
    manager: str,
) -> Message:
    node: Any = message

    def fill(wanted: Any) -> None:
        values = {(each.key, each.effect): each.value for each in changes if not each.remove}
        for one in node.spec.taints:
            if any(each.remove and _is_meant(each, one.key, one.effect) for each in changes):
                continue
            kept = wanted.spec.taints.add()
            kept.CopyFrom(one)
            value = values.pop((one.key, one.effect), one.value)
            if value != one.value:
                kept.value = value
        for (key, effect), value in values.items():
            wanted.spec.taints.add(key=key, effect=effect, value=value or None)

    if dry_run == "client":
        changed = kind.message()
        changed.CopyFrom(message)
        of: Any = changed
        del of.spec.taints[:]
        fill(of)
        return changed
    # The list is replaced as a whole: only if nobody else has changed it meanwhile.
    answer = await objects.change(
        session,
        pb.Operation(
            ref=objects.ref(kind, message), patch=objects.merge(kind, ["spec.taints"], fill)
        ),
        [objects.guard(kind, message)],
        dry_run=dry_run == "server",
        manager=manager,
    )
    return kind.parse(answer.object)


def _word(changes: Sequence[_Change]) -> str:
    removed = [each.remove for each in changes]
    if all(removed):
        return "untainted"
    return "modified" if any(removed) else "tainted"
