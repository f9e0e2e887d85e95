"""`kcore diff`: what it shows, what it covers, how it ends."""

from pathlib import Path

import pytest

from tests.cli.cluster import Run

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {color: blue}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2, b: same}\n"


async def test_exit_codes(run: Run) -> None:
    await run.apply(CONFIG)
    assert await run("diff -f -", stdin=CONFIG.encode()) == (0, "", "")
    code, out, err = await run("diff -f -", stdin=CONFIG.replace("blue", "red").encode())
    assert (code, err) == (1, "")
    code, out, err = await run("diff -f -", stdin=CONFIG.replace("\ndata", "\ndta").encode())
    assert (code, out) == (2, "")
    assert err.startswith("<stdin>:4:1: dta: unknown field")
    for line in ("diff -f /nothing", "diff"):
        code, out, err = await run(line)
        assert (code, out) == (2, "") and err
    invalid = CONFIG.replace("color", "'a b'").encode()
    code, out, err = await run("diff -f -", stdin=invalid)
    assert (code, out) == (2, "")
    assert err.startswith("<stdin>:4:")


async def test_a_unified_diff(run: Run) -> None:
    await run.apply(CONFIG)
    changed = CONFIG.replace("blue", "red") + "---\n" + CONFIG.replace("name: c", "name: d")
    code, out, _ = await run("diff -f -", stdin=changed.encode())
    assert code == 1
    assert out == (
        "--- live/v1.ConfigMap.default.c\n"
        "+++ merged/v1.ConfigMap.default.c\n"
        "@@ -6,4 +6,4 @@\n"
        "   uid: {}\n"
        '   creationTimestamp: "2026-01-01T00:00:00Z"\n'
        " data:\n"
        "-  color: blue\n"
        "+  color: red\n"
        "--- live/v1.ConfigMap.default.d\n"
        "+++ merged/v1.ConfigMap.default.d\n"
        "@@ -0,0 +1,7 @@\n"
        "+apiVersion: v1\n"
        "+kind: ConfigMap\n"
        "+metadata:\n"
        "+  name: d\n"
        "+  namespace: default\n"
        "+data:\n"
        "+  color: blue\n"
    ).format((await run("get cm c -o jsonpath={.metadata.uid}"))[1])
    # Nothing was stored.
    assert (await run("get cm d"))[0] == 1
    _, out, _ = await run("--color=always diff -f -", stdin=changed.encode())
    assert "\x1b[31m-  color: blue\x1b[0m\n\x1b[32m+  color: red\x1b[0m\n" in out


async def test_what_is_secret_is_covered(run: Run) -> None:
    await run.apply(SECRET)
    changed = SECRET.replace("hunter2", "hunter3").replace("same}", "same, c: new}")
    code, out, _ = await run("diff -f -", stdin=changed.encode())
    assert code == 1
    assert '-  a: "*** (before)"\n-  b: "***"\n+  a: "*** (after)"\n' in out or (
        '-  a: "*** (before)"\n' in out and '+  a: "*** (after)"\n' in out
    )
    assert '   b: "***"\n' in out and '+  c: "***"\n' in out
    for word in ("hunter", "c2FtZQ", "aHVudGVy", "same"):
        assert word not in out


async def test_a_namespace_and_what_is_in_it(run: Run) -> None:
    both = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n" + CONFIG.replace(
        "name: c", "name: c, namespace: shop"
    )
    code, out, err = await run("diff -f -", stdin=both.encode())
    assert (code, err) == (1, "")
    assert "+++ merged/v1.ConfigMap.shop.c\n" in out


@pytest.mark.parametrize(("program", "code"), [("diff -r", 1), ("false", 1), ("sh -c 'exit 3'", 3)])
async def test_another_program_shows_it(run: Run, program: str, code: int) -> None:
    await run.apply(CONFIG)
    run.environ["KUBECTL_EXTERNAL_DIFF"] = program
    found, out, _ = await run("diff -f -", stdin=CONFIG.replace("blue", "red").encode())
    assert found == code
    assert ("<   color: blue\n---\n>   color: red\n" in out) == (program == "diff -r")


async def test_only_some(run: Run, tmp_path: Path) -> None:
    labelled = CONFIG.replace("name: c", "name: c, labels: {app: web}")
    (tmp_path / "a.yaml").write_text(labelled + "---\n" + CONFIG.replace("name: c", "name: d"))
    _, out, _ = await run(f"diff -f {tmp_path} -l app=web")
    assert out.count("+++") == 1
    code, _, err = await run(f"diff -f {tmp_path} -l app=db")
    assert (code, err) == (2, "error: no object in what was given has the labels app=db\n")
