"""Files: whole or not at all, and with serials that rise whatever happens."""

import re
from pathlib import Path

from kcore.dns import files, render
from kcore.dns.records import Record


def zone(*records: Record) -> render.Zone:
    groups = (("service shop/web", records),) if records else ()
    return render.Zone("cluster.local", groups, "cluster.local", "10.96.0.10")


WEB = Record("web.shop.svc.cluster.local", "A", "10.96.0.1")


def serial(directory: Path) -> int:
    found = re.search(r"(\d+) ; serial", (directory / "db.cluster.local").read_text())
    assert found is not None
    return int(found[1])


def test_the_same_is_not_written_again(tmp_path: Path) -> None:
    assert files.write_zone(tmp_path, zone(), 5)
    assert not files.write_zone(tmp_path, zone(), 9)
    assert serial(tmp_path) == 5
    assert files.write_zone(tmp_path, zone(WEB), 9)
    assert serial(tmp_path) == 9


def test_serials_rise_also_where_revisions_fall(tmp_path: Path) -> None:
    files.write_zone(tmp_path, zone(), 100)
    assert files.write_zone(tmp_path, zone(WEB), 3)
    assert serial(tmp_path) == 101
    assert files.write_zone(tmp_path, zone(), 101)
    assert serial(tmp_path) == 102


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "db.cluster.local").write_bytes(b"\xff\xfe half a fi")
    assert files.write_zone(tmp_path, zone(WEB), 7)
    assert "web.shop.svc IN A 10.96.0.1\n" in (tmp_path / "db.cluster.local").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["db.cluster.local"]


def test_zones_that_are_no_more_go(tmp_path: Path) -> None:
    files.write_zone(tmp_path, zone(), 1)
    (tmp_path / "db.old.example").write_text("x")
    files.remove_others(tmp_path, ["cluster.local"])
    assert [path.name for path in tmp_path.iterdir()] == ["db.cluster.local"]


def test_the_corefile() -> None:
    zones = ["cluster.local", "96.10.in-addr.arpa"]
    assert render.corefile(zones, "/etc/coredns/zones", ["192.0.2.1"]) == (
        "# CoreDNS for this cluster, rendered by kcore.\n"
        "cluster.local 96.10.in-addr.arpa {\n"
        "    errors\n"
        "    auto {\n"
        "        directory /etc/coredns/zones db\\.(.*) {1}\n"
        "        reload 200ms\n"
        "    }\n"
        "}\n"
        "\n"
        ". {\n"
        "    errors\n"
        "    health :8080\n"
        "    ready :8181\n"
        "    prometheus :9153\n"
        "    cache 30\n"
        "    loop\n"
        "    forward . 192.0.2.1 {\n"
        "        max_concurrent 1000\n"
        "    }\n"
        "    reload\n"
        "}\n"
    )  # fmt: skip
