"""Downloads against a server on the loopback address, with every way in which one can fail."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from likely.data.download import download
from likely.errors import InvalidData

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; a test sets how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.wrong_start = False
        self.break_after: list[int] = []  # bytes after which the first, second, ... answer breaks
        self.statuses: list[int] = []  # error codes of the first, second, ... answer
        self.requests: list[str | None] = []  # Range header of each request
        self.drips = ""  # "body" or "headers": that part comes byte by byte
        self.stopping = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about: no traceback."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        body, start = self.server.content, 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            shown = 0 if self.server.wrong_start else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[start:]
        if self.server.drips == "headers":
            self.flush_headers()
            self._drip(b"X-Filler: " + bytes(60_000))
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.drips == "body":
            self._drip(body)
        elif self.server.break_after:
            self.wfile.write(body[: self.server.break_after.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _drip(self, content: bytes) -> None:
        """A byte now and then: no single wait is long."""
        with contextlib.suppress(OSError):
            for at in range(len(content)):
                self.wfile.write(content[at : at + 1])
                if self.server.stopping.wait(0.02):
                    return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def fetch(server: Server, target: Path, **settings) -> Path:
    settings = {"sha256": SHA256, "pause": 0.0, "timeout": 5.0, **settings}
    return download([server.url], target, **settings)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_progress(server, tmp_path):
    seen = []
    target = fetch(server, tmp_path / "a" / "file", progress=lambda *call: seen.append(call))
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["file"]
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_file_that_is_there_is_not_fetched(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    assert fetch(server, tmp_path / "file").read_bytes() == b"mine"
    assert server.requests == []


def test_a_broken_transfer_resumes_where_it_stopped(server, tmp_path):
    server.break_after = [300_000, 200_000]
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server, tmp_path):
    server.break_after = [300_000]
    with pytest.raises(InvalidData, match="broke after 300000 of 1048576"):
        fetch(server, tmp_path / "file", attempts=1)
    assert left(tmp_path) == ["file.part"]
    seen = []
    fetch(server, tmp_path / "file", size=len(CONTENT), progress=lambda *call: seen.append(call))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"
    assert seen[0][1] > 300_000  # progress counts what was there
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert left(tmp_path) == ["file"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.ranges = False
    server.break_after = [300_000]
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_server_that_resumes_elsewhere_is_read_from_the_start(server, tmp_path):
    server.break_after = [300_000]
    server.wrong_start = True
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", None]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT  # through answer 416
    (tmp_path / "other.part").write_bytes(b"x" * (len(CONTENT) + 1))
    target = fetch(server, tmp_path / "other", size=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_part_of_another_version_is_fetched_whole_once_more(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-", None]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(InvalidData, match=f"expected {SHA256}"):
        fetch(server, tmp_path / "file", size=len(CONTENT))
    assert left(tmp_path) == []
    assert len(server.requests) == 1


def test_a_file_of_another_size_is_refused_before_it_is_read(server, tmp_path):
    with pytest.raises(InvalidData, match="announces 1048576 bytes, expected 10"):
        fetch(server, tmp_path / "file", size=10)
    assert left(tmp_path) == []


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.statuses = [503, 429]
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    server.statuses = [404] * 9
    with pytest.raises(InvalidData, match="404"):
        fetch(server, tmp_path / "other")
    assert len(server.requests) == 3 + 1
    server.statuses = [500] * 9
    with pytest.raises(InvalidData, match="500"):
        fetch(server, tmp_path / "other", attempts=3)
    assert len(server.requests) == 4 + 3


def test_a_mirror_is_asked_where_the_first_address_fails(server, tmp_path):
    dead = "http://127.0.0.1:1/file"
    target = download(
        [dead, server.url], tmp_path / "file", sha256=SHA256, attempts=2, pause=0.0, timeout=5.0
    )
    assert target.read_bytes() == CONTENT


def test_no_connection_is_told_with_its_address(tmp_path):
    with pytest.raises(InvalidData, match=r"http://127\.0\.0\.1:1/file: no connection"):
        download(["http://127.0.0.1:1/file"], tmp_path / "f", sha256=SHA256, attempts=1)
    assert left(tmp_path) == []


def test_without_a_name_service_nobody_waits(tmp_path, monkeypatch):
    def offline(*_args, **_settings):
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(InvalidData, match=r"no connection .*name resolution"):
        download(["http://a.example/f"], tmp_path / "f", sha256=SHA256, pause=1e6)


def test_only_web_addresses_are_fetched(tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(InvalidData, match="http"):
        download([(tmp_path / "secret").as_uri()], tmp_path / "file", sha256=SHA256)
    assert not (tmp_path / "file").exists()


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidData, match="LIKELY_CACHE"):
        fetch(server, tmp_path / "file" / "below")


def test_a_full_disk_keeps_what_arrived(server, tmp_path, monkeypatch):
    import likely.data.download as module

    def full(out, block, written=module._write):
        if out.tell() > 400_000:
            raise module._CannotWrite("No space left on device")
        written(out, block)

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(InvalidData, match="No space left"):
        fetch(server, tmp_path / "file")
    assert left(tmp_path) == ["file.part"]
    monkeypatch.undo()
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1] is not None


def test_two_at_once_fetch_once(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "file")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert left(tmp_path) == ["file"]


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_server_that_drips_bytes_is_left_in_time(server, tmp_path, part):
    """No wait for a byte is ever long, so only an overall limit ends it."""
    server.drips = part
    with pytest.raises(InvalidData, match=r"file did not arrive within 0\.4 s .*resume"):
        download([server.url], tmp_path / "file", sha256=SHA256, timeout=5.0, limit=0.4)
    server.stopping.set()
    assert not (tmp_path / "file").exists()
    if part == "body":
        kept = (tmp_path / "file.part").read_bytes()
        assert kept
        assert CONTENT.startswith(kept)
        server.drips = ""
        download([server.url], tmp_path / "file", sha256=SHA256)
        assert server.requests[-1] == f"bytes={len(kept)}-"


def test_the_limit_counts_tries_and_pauses_and_the_wait_for_others(server, tmp_path):
    server.statuses = [503] * 10
    with pytest.raises(InvalidData, match=r"within 0\.2 s"):
        download([server.url], tmp_path / "file", sha256=SHA256, pause=60.0, limit=0.2)
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "file.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InvalidData, match=r"within 0\.2 s"):
            download([server.url], tmp_path / "file", sha256=SHA256, limit=0.2)
