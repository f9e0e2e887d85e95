"""`python -m bench [api|etcd|network|pods …]`: the table, as Markdown."""

import sys
import tempfile
from pathlib import Path

import uvloop

from bench import figure


async def main(names: list[str]) -> None:
    """Runs what is asked for, or all."""
    found: list[figure.Figure] = []
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as directory:
        if not names or "api" in names:
            from bench import api

            found += await api.figures(Path(directory) / "api")
        if not names or "etcd" in names:
            from bench import etcd

            found += await etcd.figures(Path(directory) / "etcd")
        if not names or "network" in names:
            from bench import network

            found += await network.figures(Path(directory) / "network")
        if not names or "pods" in names:
            from bench import pods

            found += await pods.figures(Path(directory) / "pods")
    print(figure.table(found))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
