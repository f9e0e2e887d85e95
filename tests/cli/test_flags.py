"""Flags as hands know them: `--wait=false`, `--force=true`."""

import io

import click
import pytest

from kcore.cli.root import _spelt_out
from kcore.cli.session import Session
from tests.cli.cluster import Run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (True, False)),
        (["--wait=false"], (False, False)),
        (["--wait=true", "--force=true"], (True, True)),
        (["--no-wait=true"], (False, False)),
        (["--force=false"], (True, False)),
        (["--no-wait", "--force"], (False, True)),
    ],
)
def test_flags_take_true_and_false(arguments: list[str], expected: tuple[bool, bool]) -> None:
    @click.command()
    @click.option("--wait/--no-wait", default=True)
    @click.option("--force", is_flag=True)
    def command(wait: bool, force: bool) -> tuple[bool, bool]:
        return wait, force

    assert _spelt_out(command).main(arguments, standalone_mode=False) == expected


def test_what_follows_two_dashes_is_left_alone() -> None:
    @click.command()
    @click.option("--wait/--no-wait", default=True)
    @click.argument("words", nargs=-1)
    def command(wait: bool, words: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
        return wait, words

    found = _spelt_out(command).main(["--", "--wait=false"], standalone_mode=False)
    assert found == (True, ("--wait=false",))


def test_short_options_take_a_value_after_an_equals_sign() -> None:
    @click.command()
    @click.option("-o", "--output", default="")
    @click.option("-q", is_flag=True)
    @click.argument("words", nargs=-1)
    def command(output: str, q: bool, words: tuple[str, ...]) -> tuple[str, bool, tuple[str, ...]]:
        return output, q, words

    spelt = _spelt_out(command)
    assert spelt.main(["-o=jsonpath={.a}", "a=b"], standalone_mode=False) == (
        "jsonpath={.a}",
        False,
        ("a=b",),
    )


async def test_global_options_stand_anywhere(run: Run) -> None:
    await run.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: kube-system}\n"
    )
    for line in (
        "-n kube-system get cm c -o name",
        "get -n=kube-system cm c -o=name",
        "get cm c -o name --namespace kube-system --context x --kubeconfig y --color=never",
    ):
        assert await run(line) == (0, "configmap/c\n", ""), line
    assert (await run("api-versions -n x --color=always"))[0] == 0
    assert (await run("get cm --color=green"))[0] == 2


@pytest.mark.parametrize(
    ("environ", "options", "terminal", "colored"),
    [
        ({}, "auto", True, True),
        ({}, "auto", False, False),
        ({}, "always", False, True),
        ({}, "never", True, False),
        ({"NO_COLOR": "1"}, "auto", True, False),
        ({"NO_COLOR": ""}, "auto", True, True),
        ({"NO_COLOR": "1"}, "always", True, True),
        ({"FORCE_COLOR": "1"}, "auto", False, True),
        ({"FORCE_COLOR": "0"}, "auto", True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", True, False),
        ({"CLICOLOR": "0"}, "auto", True, False),
        ({"CLICOLOR_FORCE": "1"}, "auto", False, True),
        ({"TERM": "dumb"}, "auto", True, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, "auto", True, True),
    ],
)
def test_when_colour_is_written(
    environ: dict[str, str], options: str, terminal: bool, colored: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    session = Session(environ=environ, color=options)
    assert session.colored(Stream()) is colored
