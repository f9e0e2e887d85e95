"""Goldens: one reconcile each, from tests/cases/<controller>/*.yaml.

A case says which objects there are (`before`), for which key the controller is asked and when, and
then what it wants (`actions`, `events`, `again_after`) and what has changed once that is done
(`after`). `waited`: for so many seconds nothing has happened before that. With UPDATE_CASES=1 the
second half is written anew; the difference is for people to read. Comments at the head of a file
stay.
"""

import os
import pathlib
from typing import Any

import pytest

from kcore.client import document, yaml_writer
from kcore.controllers import (
    daemonset,
    deployment,
    endpoints,
    garbage,
    namespace,
    node_lifecycle,
    orphan,
    replicaset,
    statefulset,
    taint_eviction,
)
from kcore.reconcile.controller import Controller, Key
from kcore.reconcile.view import Name
from tests.controllers import world
from tests.controllers.world import World

CASES = pathlib.Path(__file__).parents[1] / "cases"
CONTROLLERS: dict[str, Controller] = {
    "deployment": deployment.CONTROLLER,
    "replicaset": replicaset.CONTROLLER,
    "statefulset": statefulset.CONTROLLER,
    "daemonset": daemonset.CONTROLLER,
    "endpoints": endpoints.CONTROLLER,
    "garbage": garbage.CONTROLLER,
    "namespace": namespace.controller("CA"),
    "node-lifecycle": node_lifecycle.CONTROLLER,
    "orphan": orphan.CONTROLLER,
    "taint-eviction": taint_eviction.CONTROLLER,
}
GIVEN = ("key", "now", "waited", "before")
FILES = sorted(path for name in CONTROLLERS for path in (CASES / name).glob("*.yaml"))


def key_of(controller: str, text: str | list[str]) -> Key:
    """ "default/web", or its parts, or "ConfigMap default/web" where all kinds are meant."""
    if isinstance(text, list):
        return tuple(text)
    if controller != "garbage":
        return tuple(text.split("/"))
    kind, _, place = text.partition(" ")
    (full_name,) = (each for each in world.CLASSES if each.endswith(f".{kind}"))
    space, _, name = place.rpartition("/")
    return Name(full_name, space, name)


def outcome(controller: str, case: dict[str, Any]) -> dict[str, Any]:
    """The second half of a case."""
    here = World((CONTROLLERS[controller],), now=float(case["now"]))
    for each in case["before"]:
        here.add(world.parse(each))
    here.now += float(case.get("waited", 0))
    before = dict(here.objects)
    key = key_of(controller, case["key"])
    result = here.ask(0, key)
    found: dict[str, Any] = {"actions": world.lines(result.transactions)}
    accepted = here.carry_out(result, 0, key)
    assert accepted == len(result.transactions)
    found["events"] = list(here.said)
    if result.again_at is not None:
        found["again_after"] = round(result.again_at - here.now, 3)
    changed = [name for name in sorted(here.objects) if before.get(name) != here.objects[name]]
    found["after"] = [world.plain(here.objects[name]) for name in changed]
    gone = [
        f"{name.kind.rpartition('.')[2]} {name.name}" for name in before if name not in here.objects
    ]
    if gone:
        found["gone"] = sorted(gone)
    # Deciding again on what came of it must not repeat it.
    here._publish()
    repeated = [
        line for line in world.lines(here.ask(0, key).transactions) if line in found["actions"]
    ]
    assert not repeated, repeated
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: pathlib.Path) -> None:
    text = path.read_text()
    (read,) = document.read(text, path.name)
    case = read.plain
    assert isinstance(case, dict), read
    found = outcome(path.parent.name, case)
    if os.environ.get("UPDATE_CASES"):
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        first = {name: case[name] for name in GIVEN if name in case}
        path.write_text(head + yaml_writer.write(first | found))
        return
    expected = {k: v for k, v in case.items() if k not in GIVEN}
    assert found == expected


def test_there_are_cases() -> None:
    assert len(FILES) >= 15
