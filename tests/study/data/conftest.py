"""A CIFAR-10 of 120 random images in every form, in temporary folders, and no way out to the network."""

import contextlib
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.data.binary import Release


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.delenv("JAXNORM_DATA_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def release() -> Release:
    """20 images a file; its server is a closed port of this machine."""
    return Release(num_test=20, url="http://127.0.0.1:9/cifar-10-binary.tar.gz", archive_bytes=1)


@pytest.fixture
def records() -> np.ndarray:
    rng = np.random.default_rng(1)
    records = rng.integers(0, 256, (120, 3073), np.uint8)
    records[:, 0] = rng.integers(0, 10, 120)
    return records


@pytest.fixture
def write_folder() -> Callable[[Path, np.ndarray], Path]:
    """Writes DIR/cifar-10-batches-bin."""

    def write(data_dir: Path, records: np.ndarray) -> Path:
        folder = data_dir / "cifar-10-batches-bin"
        folder.mkdir(parents=True)
        for name, part in _files(records):
            (folder / name).write_bytes(part.tobytes())
        return folder

    return write


@pytest.fixture
def write_archive() -> Callable[..., Path]:
    """Writes DIR/cifar-10-binary.tar.gz; `edit(name, content)` may change, rename, drop or double its members."""

    def write(
        data_dir: Path,
        records: np.ndarray,
        edit: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]] = lambda info, content: [
            (info, content)
        ],
        level: int = 1,
    ) -> Path:
        data_dir.mkdir(parents=True, exist_ok=True)
        path = data_dir / "cifar-10-binary.tar.gz"
        with gzip.open(path, "wb", compresslevel=level) as stream, tarfile.open(fileobj=stream, mode="w:") as tar:
            for name, part in [("readme.html", np.zeros(88, np.uint8)), *_files(records)]:
                content = part.tobytes()
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                for member, data in edit(info, content):
                    tar.addfile(member, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def fails() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """The block must raise a UserError of one line that holds all these words."""

    @contextlib.contextmanager
    def check(*words: object) -> Iterator[None]:
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message

    return check


@pytest.fixture
def expected() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, str]]:
    """Images, labels and fingerprint of records, worked out independently of the package."""

    def work_out(records: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
        image = np.stack([records[:, 1 + 1024 * c : 1025 + 1024 * c] for c in range(3)], axis=-1)
        digest = hashlib.sha256(b"".join(part.tobytes() for _, part in _files(records))).hexdigest()
        return image.reshape(-1, 32, 32, 3), records[:, 0].astype(np.int32), digest

    return work_out


def _files(records: np.ndarray) -> list[tuple[str, np.ndarray]]:
    names = [f"data_batch_{i}.bin" for i in (1, 2, 3, 4, 5)] + ["test_batch.bin"]
    return list(zip(names, np.split(records, 6), strict=True))


class Server:
    """A web server on this machine that serves one body, in one of several ways of going wrong."""

    def __init__(self, behaviour: str, body: bytes) -> None:
        self.requests = 0
        self.finish = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                if behaviour == "silent":
                    server.finish.wait(30)
                    return
                if behaviour == "forbidden":
                    self.send_error(403)
                    return
                self.send_response(200)
                if behaviour != "unannounced":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                sent = body[: len(body) // 2] if behaviour in ("short", "stalling") else body
                with contextlib.suppress(OSError):  # the client may have had enough
                    self.wfile.write(sent)
                    self.wfile.flush()
                if behaviour == "stalling":
                    server.finish.wait(30)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/cifar-10-binary.tar.gz"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.finish.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[str, bytes], Server]]:
    """Starts a `Server`: "well", "short", "unannounced", "stalling", "silent", "forbidden"."""
    with contextlib.ExitStack() as stack:

        def start(behaviour: str, body: bytes) -> Server:
            server = Server(behaviour, body)
            stack.callback(server.close)
            return server

        yield start
