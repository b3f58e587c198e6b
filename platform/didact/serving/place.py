"""Where a server listens: one server a port, whatever else happens. Asked before anything is started."""

import contextlib
import errno
import getpass
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from didact.errors import ServerError


@contextlib.contextmanager
def place_for(host: str, port: int) -> Iterator[None]:
    """Hold `host:port` against other servers of didact while the block works, once nobody listens there.

    Ray Serve opens its socket so that others may open the same (`SO_REUSEPORT`); the kernel would then share the
    requests out among two servers. The lock is for those that start at the same moment.

    Raises:
        ServerError: somebody listens there, or is about to; or nobody may.
    """
    lock = FileLock(Path(tempfile.gettempdir()) / f"didact-{getpass.getuser()}-port-{port}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ServerError(_taken(host, port, "another didact server that runs or is starting")) from None
    try:
        check_port(host, port)
        yield
    finally:
        lock.release()


def check_port(host: str, port: int) -> None:
    """Nothing, where this process may listen and nobody else does.

    Raises:
        ServerError: says which of it is wrong.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Past connections in the kernel's memory do not count; a socket that listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServerError(_taken(host, port, "another program")) from None
            raise ServerError(
                f"cannot listen at {host}:{port}: {error.strerror or error}; change http_options.host in the file, or "
                "the port with --port"
            ) from None
        except OverflowError:
            raise ServerError(f"port {port} does not exist; expected 1 to 65535") from None


def _taken(host: str, port: int, by: str) -> str:
    return f"port {port} of {host} is taken by {by}; end that one, or choose another port with --port"
