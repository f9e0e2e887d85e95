"""Where one kcore lives on a machine: every path that `up` makes and `down` takes away.

A `Place` is two directories; all else is below them, so that several can live side by side.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """`state` survives a reboot, `run` does not, `config` is for people to read."""

    state: Path = Path("/var/lib/kcore")
    run: Path = Path("/run/kcore")
    config: Path = Path("/etc/kcore")

    @classmethod
    def under(cls, root: Path | None) -> "Place":
        """The machine's own place, or one wholly below `root`."""
        if root is None:
            return cls()
        root = root.absolute()
        return cls(root / "state", root / "run", root / "config")

    @property
    def database(self) -> Path:
        """The store."""
        return self.state / "store" / "kcore.db"

    @property
    def mark(self) -> Path:
        """How far the log was acknowledged, where it is kept elsewhere."""
        return self.state / "store" / "etcd.mark"

    @property
    def pki(self) -> Path:
        """Keys and certificates, root's alone."""
        return self.state / "pki"

    @property
    def containerd_state(self) -> Path:
        """Images and containers."""
        return self.state / "containerd"

    @property
    def containerd_run(self) -> Path:
        """The runtime's sockets and mounts."""
        return self.run / "containerd"

    @property
    def dns(self) -> Path:
        """Zone files, and the configuration of who serves them."""
        return self.state / "dns"

    @property
    def kubelet(self) -> Path:
        """Volumes and logs of pods."""
        return self.state / "kubelet"

    @property
    def cni_config(self) -> Path:
        """The pod network's configuration, read by the runtime."""
        return self.state / "cni" / "net.d"

    @property
    def cni_state(self) -> Path:
        """Addresses that the pod network has given away."""
        return self.state / "cni" / "state"

    @property
    def manifests(self) -> Path:
        """Static pods."""
        return self.config / "manifests"

    @property
    def kubeconfig(self) -> Path:
        """How root's clients reach the API."""
        return self.config / "kubeconfig"

    @property
    def ca(self) -> Path:
        """The cluster's authority, for everybody."""
        return self.config / "ca.crt"

    @property
    def admin_token(self) -> Path:
        """The bearer token of the cluster's owner."""
        return self.pki / "admin.token"

    @property
    def socket(self) -> Path:
        """The apiserver's socket for root."""
        return self.run / "kcore.sock"

    @property
    def pid(self) -> Path:
        """Process id of kcore's parent process."""
        return self.run / "kcore.pid"

    @property
    def log(self) -> Path:
        """What kcore's processes say."""
        return self.state / "kcore.log"

    def make(self) -> None:
        """Makes the directories; secrets' ones are root's alone, whatever the umask."""
        for path, mode in (
            (self.state, 0o711),
            (self.run, 0o711),
            (self.config, 0o755),
            (self.database.parent, 0o700),
            (self.pki, 0o700),
            (self.kubelet, 0o700),
            (self.dns, 0o755),
            (self.cni_config, 0o755),
            (self.cni_state, 0o755),
            (self.manifests, 0o755),
        ):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
