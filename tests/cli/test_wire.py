"""The command line over gRPC, as kubeconfig says; and what it does not import to be quick."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from kcore.apiserver import run as apiserver
from kcore.chance import Chance
from kcore.cli import root
from kcore.cli.session import Session
from tests.cli.cluster import NAMESPACE, StillClock, opened

CONFIG = """\
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: shop}}]
users: [{name: u, user: {}}]
clusters:
- name: c
  cluster:
    server: https://127.0.0.1:6444
    extensions: [{name: kcore.dev/endpoint, extension: {unix: %s}}]
"""


async def call(config: Path, line: str, stdin: str = "") -> tuple[int, str, str]:
    session = Session(
        stdout=io.StringIO(),
        stderr=io.StringIO(),
        stdin=io.BytesIO(stdin.encode()),
        environ={"KUBECONFIG": str(config)},
    )
    code = await root.call(line.split(), session)
    return code, session.stdout.getvalue(), session.stderr.getvalue()  # type: ignore[attr-defined]


async def test_over_a_socket(tmp_path: Path) -> None:
    config = tmp_path / "config"
    socket = tmp_path / "s"
    config.write_text(CONFIG % socket)
    clock = StillClock()
    code, out, err = await call(config, "get pods")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: cannot reach kcore at {socket}")
    async with (
        opened(clock) as kernel,
        apiserver.serving(kernel, apiserver.Listeners(socket=socket), clock, Chance(1)),
    ):
        assert await call(config, "apply -f -", NAMESPACE % "shop") == (
            0,
            "namespace/shop created\n",
            "",
        )
        assert (await call(config, "create configmap c --from-literal=a=b"))[0] == 0
        assert await call(config, "get cm -o name") == (0, "configmap/c\n", "")
        assert await call(config, "get cm x") == (
            1,
            "",
            'error: configmap "x" not found in namespace "shop"\n',
        )
        assert await call(config, "wait cm/c --for=create --timeout=10s") == (
            0,
            "configmap/c condition met\n",
            "",
        )
        assert await call(config, "delete cm c") == (0, 'configmap "c" deleted\n', "")
        code, out, _ = await call(config, "version")
        assert code == 0
        assert "other kinds" not in out


@pytest.mark.parametrize("line", ["--help", "get --help", "config view"])
def test_heavy_libraries_are_left_alone(line: str) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['kcore', *{line.split()!r}]\n"
        "from kcore.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'cryptography', 'pyroute2', 'jinja2', 'prometheus_client',"
        " 'grpc', 'cel_expr_python', 'uvloop', 'kcore.kernel'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ".:generated", "HOME": "/nothing"},
    )
    assert done.stderr == ""
    assert done.returncode == 0
