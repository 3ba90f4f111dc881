"""A read-only S3 server of a folder that serves ranges at the cost of their bytes.

moto's reads the whole object for each range, which makes small ranges of large objects look dear.
Run as `python -m tests.range_server FOLDER PORT LATENCY_MS`; the latency goes before each answer.
"""

import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class RangeHandler(BaseHTTPRequestHandler):
    """GET and HEAD of ``/bucket/key``, which is a file below the folder; nothing is checked."""

    protocol_version = "HTTP/1.1"
    # Header and body are sent apart; waiting to join them would add 40 ms to some clients' reads.
    disable_nagle_algorithm = True
    folder = Path()
    latency_seconds = 0.0

    def do_HEAD(self) -> None:
        """Say how large an object is."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """Send an object, or the range asked for."""
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        time.sleep(self.latency_seconds)
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if with_body:
            with path.open("rb") as stream:
                self.connection.sendfile(stream, begin, end - begin)


def main() -> None:
    """Serve until killed."""
    folder, port, latency_ms = sys.argv[1:]
    RangeHandler.folder = Path(folder)
    RangeHandler.latency_seconds = float(latency_ms) / 1000
    ThreadingHTTPServer(("127.0.0.1", int(port)), RangeHandler).serve_forever()


if __name__ == "__main__":
    main()
