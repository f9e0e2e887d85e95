"""Files that options name; what can't be read is wrong usage."""

import click


def read(path: str, said: str = "") -> bytes:
    """The file's content. `said`: the option, for the error."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as wrong:
        why = (wrong.strerror or str(wrong)).lower()
        raise click.UsageError(f"{said}{path}: {why}") from None


def text(path: str, said: str = "") -> str:
    """The file's text."""
    try:
        return read(path, said).decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{said}{path}: is not UTF-8 text") from None


def write(path: str, content: str) -> None:
    """Makes the file be that text."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
