"""Kinds that come at run time, at the command line."""

import base64
from pathlib import Path

from tests.cli.cluster import cluster
from tests.kernel import uploads

SCHEMA = "apiVersion: kcore.dev/v1\nkind: Schema\nmetadata: {name: acme}\nspec: {descriptors: %s}\n"
POOL = (
    "apiVersion: kcore.dev/v1\nkind: Pool\nmetadata: {name: serials}\nspec: {first: 10, last: 99}\n"
)
WIDGET = """\
apiVersion: acme.dev/v1
kind: Widget
metadata: {name: w}
spec:
  color: red
  notes: {a: b}
  parts:
  - {name: lid, weight: 1.5Ki}
"""


async def test_a_schema_is_applied_and_its_kinds_are_like_others(tmp_path: Path) -> None:
    async with cluster(tmp_path) as run:
        manifest = SCHEMA % base64.b64encode(uploads.compiled()).decode()
        await run.apply(POOL)
        code, out, err = await run("apply -f -", stdin=manifest.encode())
        assert (code, out, err) == (0, "schema.kcore.dev/acme created\n", "")
        code, out, _ = await run("apply -f -", stdin=manifest.encode())
        assert out == "schema.kcore.dev/acme unchanged\n"
        code, out, _ = await run("get schemas")
        shown = [line.split()[:2] for line in out.splitlines()]
        assert shown == [["NAME", "KINDS"], ["acme", "Widget"]]

        code, out, err = await run("apply -f -", stdin=WIDGET.encode())
        assert (code, out, err) == (0, "widget.acme.dev/w created\n", "")
        code, out, _ = await run("get wd")
        assert out.splitlines()[0].split() == ["NAME", "COLOR", "AGE"]
        assert out.splitlines()[1].split()[:2] == ["w", "red"]
        code, out, _ = await run("get widget w -o yaml")
        assert "weight: 1.5Ki" in out and "serial: 10" in out
        code, out, _ = await run("get widgets.acme.dev --field-selector spec.color=blue")
        assert "w" not in out.split()
        code, out, _ = await run("explain widget.spec")
        assert "Its color." in out
        code, out, _ = await run("api-resources")
        assert "acme.dev/v1" in out
        code, _, err = await run("apply -f -", stdin=WIDGET.replace("red", "pink").encode())
        assert code == 1 and "spec.color" in err and "pink" in err
        code, _, err = await run("apply -f -", stdin=WIDGET.replace("color:", "colour:").encode())
        assert code == 1 and 'did you mean "color"' in err
        code, _, err = await run("delete schema acme")
        assert code == 1 and "1 widgets.acme.dev" in err
        assert (await run("delete widget w"))[0] == 0
        assert (await run("delete schema acme"))[0] == 0
        code, _, err = await run("get widgets")
        assert code == 1 and 'there is no kind "widgets"' in err


async def test_create_schema_takes_what_protoc_writes(tmp_path: Path) -> None:
    file = tmp_path / "widget.binpb"
    file.write_bytes(uploads.compiled())
    async with cluster(tmp_path) as run:
        code, out, err = await run(f"create schema acme --from-descriptors {file}")
        assert (code, out, err) == (0, "schema.kcore.dev/acme created\n", "")
        file.write_bytes(b"\xff\xff")
        code, _, err = await run(f"create schema other --from-descriptors {file}")
        assert code == 1 and "not a google.protobuf.FileDescriptorSet" in err
