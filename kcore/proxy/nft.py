"""The door to nftables: libnftables, by ctypes.

    with Nft() as nft:
        nft.run("add table ip kcore\\n")      # one transaction: all of it or none
        nft.listing("table ip kcore")         # JSON; "" where there is no such thing

In process a change of one element takes a tenth of a millisecond, by the program `nft` a hundred
times as long. The library is not thread-safe, so there is one call at a time; `close` waits for one
that another thread is still in. It acts in the network namespace of its process. `Watch` tells of
changes that others make.
"""

import ctypes
import ctypes.util
import socket
import struct
import threading
from types import TracebackType

_JSON = 1 << 4

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SUBSYSTEM_NFTABLES, _NEW_GENERATION, _TABLE = 10, 15, 1
# Of a message, with what nftables puts before its attributes.
_HEADER_BYTES = 20


class NftError(Exception):
    """The kernel or the library refused; nothing was changed."""


class NoNft(Exception):
    """There is no libnftables on this machine."""


class Nft:
    """A context of the library."""

    def __init__(self) -> None:
        """NoNft where the library is missing."""
        name = ctypes.util.find_library("nftables") or "libnftables.so.1"
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            raise NoNft("libnftables is missing: try `apt-get install libnftables1`") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        for function in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, function).argtypes = (ctypes.c_void_p,)
        for function in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, function).restype = ctypes.c_char_p
            getattr(library, function).argtypes = (ctypes.c_void_p,)
        library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        self._library = library
        self._one_at_a_time = threading.Lock()
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> "Nft":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives everything back."""
        with self._one_at_a_time:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def run(self, script: str) -> None:
        """Carries it out as one transaction."""
        self._run(script, 0)

    def listing(self, what: str) -> str:
        """A table or a map with all it holds, as JSON; "" where there is none."""
        try:
            return self._run(f"list {what}", _JSON)
        except NftError as error:
            if "No such file" in str(error):
                return ""
            raise

    def _run(self, script: str, flags: int) -> str:
        with self._one_at_a_time:
            if not self._context:
                raise NftError("closed")
            self._library.nft_ctx_output_set_flags(self._context, flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            # Of a long script the first words tell enough, and the library points at wrong lines.
            raise NftError(errors.decode("utf-8", "replace").strip()[:500] or "nft failed")
        return str(output.decode())


class Watch:
    """Tells when a table has changed: `fileno` becomes readable; `transactions` counts.

    Whoever knows how many were its own knows whether there were others.
    """

    def __init__(self, table: str) -> None:
        """Listens from now on; `table` by its name, in any family."""
        self._table = table.encode() + b"\0"
        # Whether the transaction that is being told of concerns it.
        self._concerns = False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """To wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listens no more."""
        self._socket.close()

    def transactions(self) -> int | None:
        """How many changed it since the last call, anybody's; None: too many to tell."""
        count, is_lost = 0, False
        while True:
            try:
                count += self._ended(self._socket.recv(1 << 18))
            except BlockingIOError:
                return None if is_lost else count
            except OSError:
                # More came than there was room for.
                is_lost = True

    def _ended(self, data: bytes) -> int:
        """How many transactions that concern the table end in these messages."""
        count = at = 0
        while at + _HEADER_BYTES <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if length < _HEADER_BYTES:
                break
            if kind == _SUBSYSTEM_NFTABLES << 8 | _NEW_GENERATION:
                count += self._concerns
                self._concerns = False
            elif _table_of(data, at + _HEADER_BYTES, at + length) == self._table:
                self._concerns = True
            at += (length + 3) & ~3
        return count


def _table_of(data: bytes, at: int, end: int) -> bytes:
    """The table that a message is about: the attribute that all of them have."""
    while at + 4 <= end:
        size, attribute = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        if attribute & 0x3FFF == _TABLE:
            return data[at + 4 : at + size]
        at += (size + 3) & ~3
    return b""
