"""Plugins: programs `kcore-foo` on PATH, called as `kcore foo`.

Of several that fit the one with most words is taken (`kcore-foo-bar` for `kcore foo bar`); a dash
within a word is an underscore in the file's name. What is built in cannot be replaced.
"""

import os
from collections.abc import Container, Mapping, Sequence

import click

from kcore.cli.session import FAILED, Exit, Session

PREFIX = "kcore-"


@click.group()
def plugin() -> None:
    """Show the programs that add commands."""


@plugin.command(name="list")
@click.option("--name-only", is_flag=True, help="Without their directories.")
@click.pass_obj
def list_(session: Session, name_only: bool) -> None:
    """List the plugins on PATH.

    \b
    kcore plugin list
    """
    seen: set[str] = set()
    for path in _all(session.environ):
        name = os.path.basename(path)
        session.out(name if name_only else path)
        if name in seen:
            session.say(f"warning: {path} is hidden by another of its name")
        seen.add(name)
    if not seen:
        raise Exit(FAILED, "error: unable to find any kcore plugins in your PATH")


def find(
    arguments: Sequence[str], built_in: Container[str], environ: Mapping[str, str]
) -> list[str]:
    """The plugin that the arguments call, and its own arguments; empty where they call none."""
    words: list[str] = []
    for word in arguments:
        if word.startswith("-") or "/" in word:
            break
        words.append(word.replace("-", "_"))
    if not words or arguments[0] in built_in:
        return []
    # What is built in does without.
    import shutil

    for count in range(len(words), 0, -1):
        path = shutil.which(PREFIX + "-".join(words[:count]), path=environ.get("PATH", ""))
        if path is not None:
            return [path, *arguments[count:]]
    return []


def _all(environ: Mapping[str, str]) -> list[str]:
    found = []
    for directory in dict.fromkeys(environ.get("PATH", "").split(os.pathsep)):
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            if name.startswith(PREFIX) and os.access(path, os.X_OK) and os.path.isfile(path):
                found.append(path)
    return found
