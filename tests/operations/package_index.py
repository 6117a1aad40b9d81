"""A package index with one small package, on this machine; it notes what it is asked."""

import ssl
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PACKAGE = "kreislauf-parcel"
WHEEL = "kreislauf_parcel-1.0-py3-none-any.whl"
METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
FORM = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, be it as an index or as a proxy, and notes each request."""

    def do_GET(self) -> None:
        self.note()
        self.path = urlsplit(self.path).path
        super().do_GET()

    def do_CONNECT(self) -> None:
        self.note()
        self.send_error(502)

    def note(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""


def make(folder: Path) -> Path:
    """Write an index, `simple`, and the wheel beside it; returns the folder of the index."""
    page = folder / "simple" / PACKAGE
    page.mkdir(parents=True)
    information = "kreislauf_parcel-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("kreislauf_parcel.py", "")
        wheel.writestr(f"{information}/METADATA", METADATA)
        wheel.writestr(f"{information}/WHEEL", FORM)
        wheel.writestr(f"{information}/RECORD", "")
    (page / "index.html").write_text(f'<a href="../../{WHEEL}">{WHEEL}</a>')
    return folder / "simple"


@contextmanager
def serve(folder: Path, certificate: Path | None = None) -> Iterator[ThreadingHTTPServer]:
    """The folder's server; `requests` has what it was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.requests = []
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
