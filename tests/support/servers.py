"""Servers that answer wrongly, late, in part, or not at all; and a way to a good one that breaks off."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def refuse(request: BaseHTTPRequestHandler) -> None:
    """Answers that the server has failed."""
    request.send_error(500)


def stall(request: BaseHTTPRequestHandler) -> None:
    """Answers when nobody waits any more."""
    time.sleep(3)


def break_off(request: BaseHTTPRequestHandler) -> None:
    """Closes the connection in the middle of an answer."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b'{"experiment": {')


def ramble(request: BaseHTTPRequestHandler) -> None:
    """Answers with a page, as a proxy that wants a password does."""
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>Please sign in</html>")


def forwarding(port: int, requests: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Passes so many requests on to a server of this machine, and cuts off every one after them.

    Args:
        port: Port of the server.
        requests: Requests that get through.
    """
    left = iter(range(requests))
    lock = threading.Lock()

    def forward(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with lock:
            if next(left, None) is None:
                request.close_connection = True
                return
        server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        kept = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        server.request(request.command, request.path, body, kept)
        answer = server.getresponse()
        content = answer.read()
        request.send_response(answer.status)
        request.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return forward


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on this machine, and its address.

    Args:
        answer: What it does with every request.
    """

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            answer(self)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
