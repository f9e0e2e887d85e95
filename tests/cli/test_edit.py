"""`kcore edit`: with real editors, which are scripts."""

import json
from pathlib import Path

import pytest

from tests.cli.cluster import Run

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {color: blue, size: big}\n"
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
"""
HEAD = (
    "# Please edit the object below. Lines beginning with a '#' will be ignored,\n"
    "# and an empty file will abort the edit. If an error occurs while saving this file will be\n"
    "# reopened with the relevant failures.\n"
    "#\n"
)


@pytest.fixture
def editor(run: Run, tmp_path: Path) -> Path:
    """An editor that keeps what it is shown and does what the tests write into it."""
    script = tmp_path / "editor"
    script.write_text("#!/bin/sh\n:\n")
    script.chmod(0o755)
    run.environ["EDITOR"] = str(script)
    return script


def does(editor: Path, *turns: str) -> None:
    """The editor's turns, one after another; the last one over and over. $1 is the file."""
    for path in editor.parent.glob("seen.*"):
        path.unlink()
    cases = "".join(f"{n}) {turn};;\n" for n, turn in enumerate(turns[:-1]))
    editor.write_text(
        f"#!/bin/sh\ncd {editor.parent}\nn=$(ls seen.* 2>/dev/null | wc -l)\n"
        f'cp "$1" seen.$n\ncase $n in\n{cases}*) {turns[-1]};;\nesac\n'
    )


def seen(editor: Path, turn: int) -> str:
    return (editor.parent / f"seen.{turn}").read_text()


async def test_what_was_changed_is_saved(run: Run, editor: Path) -> None:
    await run.apply(CONFIG % "c")
    does(editor, "sed -i 's/blue/red/; /size/d' $1")
    assert await run("edit cm c") == (0, "configmap/c edited\n", "")
    shown = seen(editor, 0)
    assert shown.startswith(f"{HEAD}apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n")
    assert "managedFields" not in shown
    assert (await run("get cm c -o jsonpath={.data}"))[1] == '{"color":"red"}'


async def test_nothing_changed_or_all_taken_away(run: Run, editor: Path) -> None:
    await run.apply(CONFIG % "c")
    assert await run("edit cm/c") == (0, "", "Edit cancelled, no changes made.\n")
    does(editor, "sed -i 's/^#.*//' $1; : > $1")
    assert await run("edit cm/c") == (0, "", "Edit cancelled, saved file was empty.\n")
    assert await run("edit cm") == (0, "", "Edit cancelled, saved file was empty.\n")
    assert await run("edit sa") == (0, "", "No resources found.\n")


async def test_what_is_wrong_stands_on_top_when_it_is_opened_again(run: Run, editor: Path) -> None:
    await run.apply(WEB)
    does(
        editor,
        "sed -i 's/replicas: 1/replicas: x/; s/image:/imagee:/' $1",
        "sed -i 's/replicas: x/replicas: 2/; s/imagee:/image:/; s/app: web/app: other/' $1",
        "sed -i 's/app: other/app: web/' $1",
    )
    assert await run("edit deploy/web") == (0, "deployment.apps/web edited\n", "")
    again = seen(editor, 1).splitlines()
    assert again[:4] == HEAD.splitlines()
    for at, word in ((4, "replicas: x"), (5, "imagee:")):
        place, said = again[at].removeprefix("# * ").split(": ", 1)
        line, column = (int(number) for number in place.split(":"))
        # The place is one of the very file that is shown.
        assert word in again[line - 1], again[at]
        assert again[line - 1][column - 1] in "xi"
        assert said in (
            'spec.replicas: expected a whole number, got the string "x"',
            'spec.template.spec.containers[0].imagee: unknown field, did you mean "image"?',
        )
    assert "field is immutable" in seen(editor, 2)
    assert (await run("get deploy web -o jsonpath={.spec.replicas}"))[1] == "2"


async def test_a_copy_is_kept_of_what_cannot_be_saved(run: Run, editor: Path) -> None:
    await run.apply(CONFIG % "c")
    does(editor, "sed -i 's/data:/dat:/' $1", ":")
    code, out, err = await run("edit cm c")
    assert (code, out) == (1, "")
    said, copy = err.splitlines()
    assert said == "error: Edit cancelled, no valid changes were saved."
    path = Path(copy.removeprefix('A copy of your changes has been stored to "').removesuffix('"'))
    assert "dat:" in path.read_text()
    path.unlink()


async def test_what_others_change_meanwhile_stays(run: Run, editor: Path) -> None:
    await run.apply(CONFIG % "c")
    does(editor, "sed -i 's/blue/red/' $1; while [ ! -e go ]; do sleep 0.01; done")
    import asyncio

    async def others(patch: str) -> None:
        while not (editor.parent / "seen.0").exists():
            await asyncio.sleep(0.01)
        assert (await run("patch cm c -p", patch))[0] == 0
        (editor.parent / "go").touch()

    edited, _ = await asyncio.gather(run("edit cm c"), others('{"data": {"size": "small"}}'))
    assert edited == (0, "configmap/c edited\n", "")
    assert json.loads((await run("get cm c -o jsonpath={.data}"))[1]) == {
        "color": "red",
        "size": "small",
    }
    (editor.parent / "go").unlink()
    does(editor, "sed -i 's/red/blue/' $1; while [ ! -e go ]; do sleep 0.01; done")
    edited, _ = await asyncio.gather(run("edit cm c"), others('{"data": {"color": "green"}}'))
    assert edited[:2] == (1, "")
    said, copy = edited[2].splitlines()
    assert said.startswith('A copy of your changes has been stored to "')
    assert copy == (
        "error: configmap/c: data.color has been changed by somebody else meanwhile; edit it again"
    )
    Path(said.split('"')[1]).unlink()


async def test_several_objects_are_a_list(run: Run, editor: Path) -> None:
    for name in ("a", "b"):
        await run.apply(CONFIG % name)
    does(editor, "sed -i 's/blue/red/' $1")
    assert await run("edit cm") == (0, "configmap/a edited\nconfigmap/b edited\n", "")
    assert "kind: List" in seen(editor, 0)
    does(editor, "sed -i 's/name: a/name: c/' $1", ":")
    code, _, err = await run("edit cm a")
    assert code == 1
    assert "kind, name and namespace may not change: expected configmap/a" in seen(editor, 1)
    Path(err.split('"')[1]).unlink()


async def test_json(run: Run, editor: Path) -> None:
    await run.apply(CONFIG % "c")
    does(editor, "sed -i 's/blue/red/' $1")
    assert (await run("edit cm c -o json"))[1] == "configmap/c edited\n"
    assert '"color": "blue"' in seen(editor, 0)


async def test_without_an_editor_and_a_terminal(run: Run) -> None:
    run.environ["PATH"] = ""
    assert await run("edit cm c") == (
        1,
        "",
        "error: there is no terminal for vi here; set EDITOR\n",
    )
    run.environ["KUBE_EDITOR"] = "/nothing/editor"
    await run.apply(CONFIG % "c")
    code, _, err = await run("edit cm c")
    assert code == 1
    assert "error: the editor /nothing/editor: no such file or directory; set EDITOR\n" in err
    Path(err.split('"')[1]).unlink()
