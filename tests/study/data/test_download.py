"""A download is whole and right, or it is one line and nothing on disk."""

import hashlib
import inspect
import socket
import threading
import urllib.request
from http.client import HTTPResponse

import pytest

from jaxnorm.study.data.download import UnreachableError, download

BODY = bytes(range(256)) * 4096


@pytest.fixture
def fetch(tmp_path):
    """Downloads to a folder that does not exist yet, expecting BODY."""

    def run(url, **options):
        options = {"size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest(), "progress": False, **options}
        download(url, tmp_path / "new" / "folder" / "archive.tar.gz", **options)

    return run


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("behaviour", ["well", "unannounced"])
def test_the_file_arrives(tmp_path, serve, fetch, behaviour):
    fetch(serve(behaviour, BODY).url)
    (path,) = files(tmp_path)
    assert path == tmp_path / "new" / "folder" / "archive.tar.gz"
    assert path.read_bytes() == BODY


def test_progress_is_shown_on_standard_error(serve, fetch, capsys):
    server = serve("well", BODY)
    fetch(server.url, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"Downloading {server.url} (1 MB)"
    assert err.splitlines()[-1].endswith(": 100 %")


@pytest.mark.parametrize(
    ("behaviour", "body", "words"),
    [
        ("short", BODY, ["1,048,576", "524,288"]),
        ("well", BODY[:-1], ["1,048,576", "announces 1048575"]),
        ("unannounced", BODY[:-1], ["1,048,576", "only 1,048,575"]),
        ("unannounced", BODY * 2, ["1,048,576", "more came"]),
        ("well", BODY[:-1] + b"x", ["SHA-256", hashlib.sha256(BODY).hexdigest()]),
        ("stalling", BODY, ["stopped after", "time-out"]),
    ],
)
def test_what_comes_wrong_is_refused_and_not_kept(tmp_path, serve, fetch, fails, behaviour, body, words):
    server = serve(behaviour, body)
    with fails(server.url, *words, "nothing was kept"):
        fetch(server.url, stall_seconds=0.3)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, serve, fetch, monkeypatch):
    read, calls = HTTPResponse.read, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*args)

    monkeypatch.setattr(HTTPResponse, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(serve("well", BODY).url)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failed_download(tmp_path, serve, fetch, fails):
    path = tmp_path / "new" / "folder" / "archive.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    with fails("nothing was kept"):
        fetch(serve("short", BODY).url)
    assert path.read_text() == "old"
    assert files(tmp_path) == [path]


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_unreachable_servers(tmp_path, serve, fetch):
    for url, words in [
        (f"http://127.0.0.1:{closed_port()}/a", "refused"),
        (serve("silent", BODY).url, "no answer within 0.3 s"),
        (serve("forbidden", BODY).url, "HTTP status 403"),
    ]:
        with pytest.raises(UnreachableError, match=words):
            fetch(url, reach_seconds=0.3)
    assert list(tmp_path.iterdir()) == []


def test_limits_are_ten_seconds_to_answer_and_thirty_of_silence():
    parameters = inspect.signature(download).parameters
    assert (parameters["reach_seconds"].default, parameters["stall_seconds"].default) == (10, 30)


def test_a_name_look_up_that_hangs_is_given_up_and_its_late_answer_closed(fetch, serve, monkeypatch):
    """No socket time-out bounds `getaddrinfo`; and a late answer must not leak its socket."""
    server, go_on, open_url, late = serve("well", BODY), threading.Event(), urllib.request.urlopen, []

    def hanging(*args, **kwargs):
        go_on.wait(30)
        late.append(open_url(*args, **kwargs))
        return late[0]

    monkeypatch.setattr(urllib.request, "urlopen", hanging)
    with pytest.raises(UnreachableError, match="no answer"):
        fetch(server.url, reach_seconds=0.05)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "reachability":
            thread.join()
    assert late[0].isclosed()


def test_unwritable_folder(tmp_path, serve, fails):
    (tmp_path / "file").touch()
    with fails(tmp_path / "file", "cannot write", "--data-dir"):
        download(serve("well", BODY).url, tmp_path / "file" / "a", size=len(BODY), sha256="", progress=False)
