"""A proxy on 127.0.0.1 between MLflow's client and server that fails on request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PASS = "pass"
REFUSE = "refuse"  # nothing listens
HANG = "hang"  # accepts requests and does not answer
DROP = "drop"  # the server does the work, and its answer is lost
SLOW = "slow"  # every answer takes `Proxy.delay` seconds
LOGIN, BAD_GATEWAY, FORBIDDEN = "200", "502", "403"  # a page with a status, as any number


class Proxy:
    """Forwards HTTP requests, one for each connection, in one of the modes above.

    `drops` is the number of further answers to lose in mode DROP, after which it passes; None for
    all. `only` limits the mode to requests whose first line contains that text.
    """

    def __init__(self, port: int) -> None:
        self._target, self.mode, self.delay = ("127.0.0.1", port), PASS, 2.0
        self.drops: int | None = None
        self.only = ""
        self.requests: list[str] = []  # first lines, such as `POST /api/... HTTP/1.1`
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str, *, only: str = "", drops: int | None = None) -> None:
        """Change the mode, also for requests that hang."""
        with self._changed:
            self.only, self.drops, self.mode = only, drops, mode
            self._changed.notify_all()

    def close(self) -> None:
        self._closing.set()
        self.set(PASS)

    def _accept(self) -> None:
        while not self._closing.is_set():
            if self.mode == REFUSE and not self.only:
                self._listener.close()
                with self._changed:
                    self._changed.wait_for(lambda: self.mode != REFUSE)
                self._listener = socket.create_server(("127.0.0.1", self._port))
            self._listener.settimeout(0.05)
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            request = _read_message(client)
            if request is None:
                return
            line = request.split(b"\r\n", 1)[0].decode()
            self.requests.append(line)
            mode = self.mode if self.only in line else PASS
            if mode == HANG:
                with self._changed:
                    self._changed.wait_for(lambda: self.mode != HANG)
                return
            if mode == REFUSE:
                return
            if mode.isdecimal():
                client.sendall(_page(mode))
                return
            if mode == SLOW:
                self._closing.wait(self.delay)
            answer = self._ask(request)
            if not self._loses(mode):
                client.sendall(answer)

    def _loses(self, mode: str) -> bool:
        with self._changed:
            if mode != DROP or self.drops == 0:
                return False
            if self.drops is not None:
                self.drops -= 1
            return True

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._target) as server:
            server.sendall(_closing_connection(request))
            parts = list(iter(lambda: server.recv(1 << 16), b""))
        return b"".join(parts)


def _read_message(source: socket.socket) -> bytes | None:
    """Read a whole request, with its body by Content-Length or in chunks."""
    found = b""
    while b"\r\n\r\n" not in found:
        if not (part := source.recv(1 << 16)):
            return None
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", 0))
    parts = [body]
    size = len(body)
    while size < length:
        if not (part := source.recv(1 << 16)):
            return None
        parts.append(part)
        size += len(part)
    return b"".join([head, b"\r\n\r\n", *parts])


def _closing_connection(request: bytes) -> bytes:
    head, separator, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + separator + body


def _page(status: str) -> bytes:
    page = f"<html><body>{status}</body></html>"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n"
    return f"{head}Connection: close\r\n\r\n{page}".encode()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """Run a proxy before the server at a port, until the block ends."""
    made = Proxy(port)
    try:
        yield made
    finally:
        made.close()
