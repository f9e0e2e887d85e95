"""`kcore version`: both ends, and whether they go together."""

import json

import pytest

import kcore
from kcore.cli.version import skew
from tests.cli.cluster import Run


async def test_both_ends_say_their_versions(run: Run) -> None:
    code, out, err = await run("version")
    ours = f"v{kcore.__version__}"
    assert (code, err) == (0, "")
    assert out.startswith(f"Client Version: {ours}\nServer Version: {ours}\nCluster: ")
    assert await run("version --client") == (0, f"Client Version: {ours}\n", "")
    said = json.loads((await run("version -o json"))[1])
    assert said["serverVersion"]["gitVersion"] == said["clientVersion"]["gitVersion"] == ours
    assert said["serverVersion"]["clusterId"]
    assert (await run("version -o wide"))[0] == 2


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ("0.1.0", "0.1.9", True),
        ("0.1.0", "0.2.0", True),
        ("0.3.0", "0.2.0", True),
        ("0.1.0", "0.3.0", False),
        ("0.1.0", "1.1.0", False),
        ("0.1.0", "", False),
    ],
)
def test_one_minor_version_apart_is_fine(client: str, server: str, fits: bool) -> None:
    assert (skew(client, server) == "") is fits
