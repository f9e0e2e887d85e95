"""Manifests as Kubernetes' documentation writes them, unchanged but for the image's name."""

import asyncio
from pathlib import Path

from kcore.boot import images
from tests.machine import Machine

SERVER = "kcore.local/server:1"

# The forms that its examples use: comments, odd indents, quotes, and KYAML.
BLOCK = f"""
# A front of three.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: front
spec:
  replicas: 3
  selector:
    matchLabels:
        app: book
        tier: front
  template:
    metadata:
      labels:
        app: book
        tier: front
    spec:
      containers:
      - name: php
        image: "{SERVER}"
        env:
        - name: HOSTS_FROM
          value: "dns"
        resources:
          requests:
            cpu: 100m
            memory: 100Mi
        ports:
        - containerPort: 80
"""
FLOW = f"""---
{{
  # A store of two.
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: {{
    name: "store",
    labels: {{app.kubernetes.io/name: "store", role: "follower",}},
  }},
  spec: {{
    replicas: 2,
    selector: {{matchLabels: {{app.kubernetes.io/name: "store",}},}},
    template: {{
      metadata: {{labels: {{app.kubernetes.io/name: "store", role: "follower",}},}},
      spec: {{
        containers: [{{
          name: "follower",
          image: "{SERVER}",
          resources: {{requests: {{cpu: "100m", memory: "100Mi",}},}},
          ports: [{{containerPort: 6379,}}],
        }}],
      }},
    }},
  }},
}}
"""


def server_image() -> bytes:
    """An image that serves by itself, as those of the examples do."""
    program = images.static_program(Path("/usr/bin/busybox"))
    entries = [
        images.Entry("bin", 0o755),
        images.Entry("bin/busybox", 0o755, data=program),
        images.Entry("www", 0o755),
    ]
    command = ("/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    return images.image_tar(SERVER, [images.layer(entries)], images.Config(command=command))


def test_documented_deployments_apply_unchanged(machine: Machine, space: str) -> None:
    socket = machine.root / "run" / "containerd" / "containerd.sock"
    asyncio.run(images.load(server_image(), socket))
    for text in (BLOCK, FLOW):
        name = machine.apply(text, "-n", space).split()[0]
        machine.kcore("rollout", "status", name, "-n", space, "--timeout=90s")
        assert machine.apply(text, "-n", space) == f"{name} unchanged\n"
    table = machine.says("get", "deployments", "-n", space, "--no-headers").splitlines()
    assert sorted(line.split()[:2] for line in table) == [["front", "3/3"], ["store", "2/2"]]
