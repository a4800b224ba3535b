"""A reverse proxy in a few lines, which serves a server below a path prefix and strips it, as
`location /prefix/ { proxy_pass http://server/; }` does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@contextmanager
def below(prefix: str, url: str) -> Iterator[str]:
    """The URL under which the server at `url` is found below `prefix` (`/config`). Any other path is 404."""
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as upstream:

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(size)
                if not self.path.startswith(prefix + "/"):
                    self.send_error(404)
                    return
                sent = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                given = upstream.request(
                    self.command, self.path.removeprefix(prefix), headers=sent, content=body
                )
                self.send_response(given.status_code)
                for name, value in given.headers.multi_items():
                    if name not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(given.content)))
                self.end_headers()
                self.wfile.write(given.content)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do

            def log_message(self, *_: object) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
            front.daemon_threads = True
            thread = threading.Thread(target=front.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{front.server_port}{prefix}"
            finally:
                front.shutdown()
                thread.join()
