"""`kcore set`: images, environments and resources of containers, the account they run under.

Whatever kind has pods or a template of pods in its spec has containers; which it is goes by the
kind's shape, not by its name.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from kcore.cli import change, objects, options, output, rollouts, subject, targets
from kcore.cli.report import Report
from kcore.cli.session import FAILED, Exit, Session
from kcore.client.kinds import Kind
from kcore.client.problem import meant
from kcore.wire import quantity

# Where a pod's spec can stand, in proto names.
_SPECS: Final = (
    ("spec", "containers"),
    ("spec.template.spec", "containers"),
    ("spec.job_template.spec.template.spec", "containers"),
)
Change = Callable[[dict[str, Any]], None]


@click.group(name="set")
def set_() -> None:
    """Set images, environments, resources and accounts of containers.

    \b
    kcore set image deploy/web nginx=nginx:1.29
    kcore set env deploy/web LEVEL=debug
    """


def _shared(function: Any) -> Any:
    """What all of them take."""
    for option in (
        click.argument("words", nargs=-1, metavar="KIND NAME... | KIND/NAME... VALUE..."),
        options.filenames,
        options.namespace,
        options.selector,
        options.dry_run,
        options.output,
        options.manager,
        click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace."),
        click.pass_obj,
    ):
        function = option(function)
    return function


@set_.command()
@_shared
async def image(session: Session, words: tuple[str, ...], **given: Any) -> int:
    """Set images of containers; `*` is all of them.

    \b
    kcore set image deploy/web nginx=nginx:1.29
    kcore set image deploy,ds --all '*=registry.example/base:2'
    """
    names, pairs = _split(words)
    images = _pairs(pairs)
    if not images:
        raise click.UsageError("say which image: CONTAINER=IMAGE")

    def change_spec(spec: dict[str, Any]) -> None:
        containers = _containers(spec, "*", inits=True)
        known = [c["name"] for c in containers]
        for name, value in images.items():
            if name != "*" and name not in known:
                raise Exit(FAILED, f'error: there is no container "{name}"{_among(name, known)}')
            for container in containers:
                if name in ("*", container["name"]):
                    container["image"] = value

    return await _set(session, names, change_spec, "image updated", **given)


@set_.command()
@_shared
@click.option("-c", "--containers", default="*", show_default=True,
              help="Of these containers: a name, with * for any part.")  # fmt: skip
@click.option("--from", "source", default="", metavar="KIND/NAME",
              help="All keys of a config map or a secret.")  # fmt: skip
@click.option("--keys", default="", help="With --from: only these, with commas.")
@click.option("--prefix", default="", help="With --from: before each name.")
@click.option("--list", "lists", is_flag=True, help="Only show the environment.")
@click.option("--overwrite/--no-overwrite", default=True, help="Replace other values, too.")
async def env(
    session: Session,
    words: tuple[str, ...],
    containers: str,
    source: str,
    keys: str,
    prefix: str,
    lists: bool,
    overwrite: bool,
    **given: Any,
) -> int:
    """Set and remove environment variables of containers.

    \b
    kcore set env deploy/web LEVEL=debug OLD-
    kcore set env deploy/web --from=configmap/settings --prefix=APP_
    kcore set env deploy/web --list
    """
    names, pairs = _split(words, minus=True)
    if lists:
        return await _list_env(session, names, containers, **given)
    wanted: dict[str, dict[str, Any] | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        key = name if equals else name.removesuffix("-")
        wanted[key] = {"name": key, "value": value} if equals else None
    if source:
        wanted |= await _env_from(session, source, [k for k in keys.split(",") if k], prefix)
    if not wanted:
        raise click.UsageError("say what: NAME=VALUE, NAME- to remove, or --from=KIND/NAME")

    def change_spec(spec: dict[str, Any]) -> None:
        for container in _containers(spec, containers):
            variables = {v["name"]: v for v in container.get("env", [])}
            for name, value in wanted.items():
                if value is None:
                    variables.pop(name, None)
                elif not overwrite and variables.get(name, value) != value:
                    said = f'{container["name"]} already has a value for "{name}"'
                    raise Exit(FAILED, f"error: {said}; leave out --no-overwrite")
                else:
                    variables[name] = value
            container["env"] = list(variables.values())
            if not variables:
                del container["env"]

    return await _set(session, names, change_spec, "env updated", **given)


@set_.command()
@_shared
@click.option("-c", "--containers", default="*", show_default=True,
              help="Of these containers: a name, with * for any part.")  # fmt: skip
@click.option("--limits", default="", help="cpu=200m,memory=512Mi; 0 removes one.")
@click.option("--requests", default="", help="cpu=100m,memory=256Mi; 0 removes one.")
async def resources(
    session: Session, words: tuple[str, ...], containers: str, limits: str, requests: str,
    **given: Any,
) -> int:  # fmt: skip
    """Set what containers may use and ask for.

    \b
    kcore set resources deploy/web --limits=cpu=200m,memory=512Mi --requests=cpu=100m
    """
    wanted = {"limits": _quantities(limits), "requests": _quantities(requests)}
    if not any(wanted.values()):
        raise click.UsageError("say what: --limits or --requests")

    def change_spec(spec: dict[str, Any]) -> None:
        for container in _containers(spec, containers):
            given = container.setdefault("resources", {})
            for name, amounts in wanted.items():
                now = {**given.get(name, {}), **amounts}
                given[name] = {k: v for k, v in now.items() if quantity.parse(v)}
                if not given[name]:
                    del given[name]
            if not given:
                del container["resources"]

    return await _set(session, words, change_spec, "resource requirements updated", **given)


@set_.command()
@_shared
async def serviceaccount(session: Session, words: tuple[str, ...], **given: Any) -> int:
    """Set the service account that pods run under.

    \b
    kcore set serviceaccount deploy/web robot
    """
    *names, account = words or [""]
    if not names or "/" in account:
        raise click.UsageError("say which account: KIND/NAME ACCOUNT")

    def change_spec(spec: dict[str, Any]) -> None:
        # Of these two names for one thing the older follows.
        spec.pop("serviceAccount", None)
        spec["serviceAccountName"] = account

    return await _set(session, names, change_spec, "serviceaccount updated", **given)


async def _set(
    session: Session,
    names: Sequence[str],
    change_spec: Change,
    word: str,
    *,
    filenames: tuple[str, ...],
    recursive: bool,
    labels: str,
    dry_run: str,
    form: str,
    manager: str,
    all_: bool,
) -> int:
    form = output.check(form)
    found = await targets.find(
        session, names, filenames=filenames, recursive=recursive, labels=labels, all_=all_
    )
    report = Report(session, form, dry_run)
    code = 0
    for kind, message in found:
        path = _spec_path(kind)

        def change_object(plain: dict[str, Any], path: tuple[str, ...] = path) -> None:
            change_spec(_spec(plain, path))

        try:
            new, changed = await change.changed(
                session, kind, message, change_object, dry_run=dry_run != "none", manager=manager
            )
        except Exit as refused:
            session.say(f"{output.name(kind, message)}: {refused.message}")
            code = FAILED
            continue
        if changed or form:
            report.add(kind, new, word)
    report.end(one=len(found) == 1)
    return code


async def _list_env(
    session: Session,
    names: Sequence[str],
    containers: str,
    *,
    filenames: tuple[str, ...],
    recursive: bool,
    labels: str,
    all_: bool,
    **_: Any,
) -> int:
    found = await targets.find(
        session, names, filenames=filenames, recursive=recursive, labels=labels, all_=all_
    )
    for kind, message in found:
        for container in _containers(_spec(change.plain(message), _spec_path(kind)), containers):
            session.out(f"# {output.name(kind, message)}, container {container['name']}")
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    (source, where), *_rest = variable["valueFrom"].items()
                    said = where.get("key") or where.get("fieldPath") or where.get("resource")
                    holder = f" of {where['name']}" if "name" in where else ""
                    session.out(f"# {variable['name']} from {source}: {said}{holder}")
                else:
                    session.out(f"{variable['name']}={variable.get('value', '')}")
    return 0


async def _env_from(
    session: Session, source: str, keys: Sequence[str], prefix: str
) -> dict[str, dict[str, Any] | None]:
    """Variables that refer to the keys of a config map or a secret."""
    if "/" not in source:
        raise click.UsageError("--from takes configmap/NAME or secret/NAME")
    (asked,) = subject.parse([source], await session.kinds())
    word = {"ConfigMap": "configMapKeyRef", "Secret": "secretKeyRef"}.get(asked.kind.name)
    if word is None:
        raise click.UsageError(f"--from takes a config map or a secret, not {asked.said}")
    message: Any = await objects.get(session, asked.kind, session.namespace, asked.name)
    known = sorted(message.data)
    unknown = [key for key in keys if key not in known]
    if unknown:
        said = f'error: {asked.said} has no key "{unknown[0]}"{_among(unknown[0], known)}'
        raise Exit(FAILED, said)
    found: dict[str, dict[str, Any] | None] = {}
    for key in keys or known:
        name = prefix + "".join(c if c.isalnum() else "_" for c in key).upper()
        found[name] = {"name": name, "valueFrom": {word: {"name": asked.name, "key": key}}}
    return found


def _spec_path(kind: Kind) -> tuple[str, ...]:
    for path, field in _SPECS:
        if rollouts.has(kind, f"{path}.{field}"):
            descriptor: Any = kind.descriptor
            names = []
            for part in path.split("."):
                field_ = descriptor.fields_by_name[part]
                names.append(field_.json_name)
                descriptor = field_.message_type
            return tuple(names)
    raise click.UsageError(f"{kind.options.plural} have no containers")


def _spec(plain: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = plain
    for name in path:
        found = found.setdefault(name, {})
    return found


def _containers(spec: dict[str, Any], pattern: str, *, inits: bool = False) -> list[dict[str, Any]]:
    import fnmatch

    lists = ("containers", "initContainers") if inits else ("containers",)
    everything: list[dict[str, Any]] = [c for name in lists for c in spec.get(name, [])]
    found = [c for c in everything if fnmatch.fnmatchcase(c["name"], pattern)]
    if not found:
        known = [c["name"] for c in everything]
        raise Exit(FAILED, f'error: there is no container "{pattern}"{_among(pattern, known)}')
    return found


def _among(word: str, known: Sequence[str]) -> str:
    return meant(word, known) or f"; there is {', '.join(known)}"


def _split(words: Sequence[str], *, minus: bool = False) -> tuple[list[str], list[str]]:
    """Names, and what to set."""
    pairs = [w for w in words if "=" in w or (minus and w.endswith("-"))]
    return [w for w in words if w not in pairs], pairs


def _pairs(said: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in said:
        name, _, value = pair.partition("=")
        if not name or not value:
            raise click.UsageError(f'"{pair}" is not of the form name=value')
        found[name] = value
    return found


def _quantities(said: str) -> dict[str, str]:
    found = _pairs([part for part in said.split(",") if part])
    for value in found.values():
        try:
            quantity.parse(value)
        except ValueError as wrong:
            raise click.UsageError(str(wrong)) from None
    return found
