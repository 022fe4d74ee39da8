"""One connection to an endpoint: a request out, a bounded answer in before a deadline.

On the standard library's `http.client`, because of what the usual clients do not give. They bound
the wait for each packet, not for the whole answer, and read a body whole before anyone can look at
its size; here every byte, headers included, counts against one deadline and one limit. And they
cost: on one busy machine a request took 2.3 to 3 ms of CPU through `openai`, 0.9 to 1.5 through
httpx2, 0.6 through urllib3, 0.2 to 0.3 through http.client alone, and 0.3 to 0.6 through this
package with all that it checks and saves (tests/benchmarks/bench_evolve.py). At 600 requests per
second that decides whether the server waits for its client.
"""

import http.client
import io
import ipaddress
import select
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit


class TooLong(Exception):
    """The answer has more bytes than any valid one."""


class Unreachable(OSError):
    """There was no connection to send anything over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came: `headers` by lower-case name, `body` whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Inflow(io.RawIOBase):
    """What a socket brings until `deadline` (monotonic seconds), at most `limit` bytes."""

    def __init__(self, sock: socket.socket, deadline: float, limit: int):
        self.sock, self.deadline, self.limit = sock, deadline, limit
        self.raw = sock.makefile("rb", buffering=0)  # keeps the socket open, as http.client expects

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads from; it takes this object for the socket."""
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self.limit <= 0:
            raise TooLong
        self.sock.settimeout(left)
        count = self.raw.readinto(memoryview(buffer)[: self.limit])
        self.limit -= count
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


def _bounded(sock: socket.socket, *args, deadline: float, limit: int, **kwargs):
    return http.client.HTTPResponse(_Inflow(sock, deadline, limit), *args, **kwargs)


def check_address(base_url: str) -> None:
    """ValueError for what is no address of an endpoint, or holds a secret."""
    parts = urlsplit(base_url)
    if parts.username or parts.password or parts.query or parts.fragment:
        shown = f"{parts.scheme}://...@{parts.hostname}" if parts.username else parts.hostname
        raise ValueError(
            f"{shown}: an address with a password, `?` or `#`; the key belongs in the environment"
        )
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if parts.scheme not in ("http", "https") or not parts.hostname or not (port_fits and plain):
        raise ValueError(f"{base_url!r}: expected an address like http://127.0.0.1:8000/v1")


def is_loopback(host: str) -> bool:
    """Whether `host` names this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_of(base_url: str) -> str | None:
    """The proxy that the environment names for an address; never one for this very machine."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    if is_loopback(parts.hostname) or proxy_bypass(parts.hostname):
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


class Line:
    """A connection that is opened when needed, used again, and opened anew when it broke."""

    def __init__(self, base_url: str):
        self.base_url = base_url
        parts = urlsplit(base_url)
        proxy = proxy_of(base_url)
        peer = parts if proxy is None else urlsplit(proxy)
        plainly = peer is not parts and parts.scheme == "http"
        self._connection = _connection(parts, peer)
        self._prefix = (f"http://{parts.netloc}" if plainly else "") + parts.path.rstrip("/")
        self._headers = _proxy_headers(peer) if plainly else {}

    def exchange(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        timeout: float,
        limit: int,
    ) -> Answer:
        """Sends and receives within `timeout` seconds, at most `limit` bytes.

        `Unreachable` or another OSError (TimeoutError, ConnectionError, ...), `TooLong`, or
        http.client.HTTPException for an answer that is cut or no HTTP: the connection is closed.
        """
        deadline = time.monotonic() + timeout
        connection = self._connection
        try:
            connection.response_class = partial(_bounded, deadline=deadline, limit=limit)
            self._connect(timeout)
            connection.request(method, self._prefix + path, body, {**headers, **self._headers})
            response = connection.getresponse()
            return _read(response, limit)
        except BaseException:
            connection.close()
            raise

    def _connect(self, timeout: float) -> None:
        connection = self._connection
        if connection.sock is not None and _readable(connection.sock):
            connection.close()  # the server hung up since, or speaks unasked
        if connection.sock is None:
            connection.timeout = timeout
            try:
                connection.connect()
            except ssl.SSLCertVerificationError:
                raise
            except OSError as error:
                raise Unreachable(error.strerror or str(error)) from error
        connection.sock.settimeout(timeout)

    def cut(self) -> None:
        """Ends an exchange that another thread waits in, with an error there."""
        sock = self._connection.sock
        try:
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it ended by itself meanwhile

    def close(self) -> None:
        self._connection.close()


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _connection(parts, peer) -> http.client.HTTPConnection:
    """To `peer` (the server itself or a proxy), through it to the server where that is https."""
    if peer is not parts and (peer.scheme != "http" or not peer.hostname):
        raise ValueError("the environment names a proxy that is none of http://; unset it")
    if parts.scheme == "http":
        return http.client.HTTPConnection(peer.hostname, peer.port or 80)
    if peer is parts:
        return http.client.HTTPSConnection(parts.hostname, parts.port or 443)
    connection = http.client.HTTPSConnection(peer.hostname, peer.port or 80)
    connection.set_tunnel(parts.hostname, parts.port or 443, _proxy_headers(peer))
    return connection


def _proxy_headers(peer) -> dict[str, str]:
    if not peer.username:
        return {}
    from base64 import b64encode

    user = f"{unquote(peer.username)}:{unquote(peer.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"}


def _read(response: http.client.HTTPResponse, limit: int) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    if response.length is not None and response.length > limit:
        raise TooLong
    body = response.read(limit + 1)
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    if len(body) > limit:
        raise TooLong
    return Answer(response.status, headers, body)
