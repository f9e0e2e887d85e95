"""Flags as hands know them: `--wait=false`, `--force=true`."""

import click
import pytest

from kcore.cli.root import _spelt_out


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
