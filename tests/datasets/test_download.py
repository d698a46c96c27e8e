"""Downloads from a server on this machine: checked, resumed, unpacked, and nothing left half done."""

import hashlib
import io
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from subnetbench.datasets.cub import Cub
from subnetbench.datasets.flowers102 import Flowers102
from subnetbench.datasets.parts.download import Download, fetch_archive, fetch_file
from subnetbench.datasets.sop import Sop
from subnetbench.harness.core.errors import DataError, UserError

CONTENT = bytes(range(256)) * 5000


class Server(ThreadingHTTPServer):
    """Serves `files`; `breaks_after` bytes it ends a connection, and `ranges` says whether it can start midway."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.breaks_after: int | None = None
        self.ranges = True
        self.starts: list[int] = []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        content = server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        server.starts.append(start)
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest if server.breaks_after is None else rest[: server.breaks_after])

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def published(server, name, content, algorithm="sha256") -> Download:
    server.files[name] = content
    return Download(server.address(name), hashlib.new(algorithm, content).hexdigest(), algorithm)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_is_fetched_once(server, tmp_path, algorithm):
    download = published(server, "a.bin", CONTENT, algorithm)
    path = fetch_file(download, tmp_path / "new")
    assert path.read_bytes() == CONTENT
    fetch_file(download, tmp_path / "new")
    assert server.starts == [0]
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]


def test_a_broken_download_is_gone_on_with(server, tmp_path):
    download = published(server, "a.bin", CONTENT)
    server.breaks_after = 500_000
    for received in (500_000, 1_000_000):
        with pytest.raises(DataError, match=f"broke off after {received} bytes"):
            fetch_file(download, tmp_path)
        assert (tmp_path / "a.bin.part").stat().st_size == received
        assert not (tmp_path / "a.bin").exists()
    assert fetch_file(download, tmp_path).read_bytes() == CONTENT
    assert server.starts == [0, 500_000, 1_000_000]


def test_a_server_that_always_starts_at_the_beginning(server, tmp_path):
    download = published(server, "a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    server.ranges = False
    assert fetch_file(download, tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, tmp_path):
    download = published(server, "a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch_file(download, tmp_path).read_bytes() == CONTENT


def test_another_file_than_the_published_one(server, tmp_path):
    download = published(server, "a.bin", CONTENT)
    server.files["a.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match="not the published file"):
        fetch_file(download, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(server, tmp_path):
    with pytest.raises(DataError, match="404"):
        fetch_file(Download(server.address("b.bin"), ""), tmp_path)
    with pytest.raises(DataError, match="broke off"):
        fetch_file(Download("http://127.0.0.1:9/a.bin", ""), tmp_path)


def tar_of(**files: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def test_archives_are_unpacked_and_removed(server, tmp_path):
    packed = tar_of(**{"set/images/1.jpg": b"1", "set/list.txt": b"2", "attributes.txt": b"3"})
    fetch_archive(published(server, "set.tgz", packed), tmp_path)
    assert (tmp_path / "set" / "images" / "1.jpg").read_bytes() == b"1"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["attributes.txt", "set"]
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("other/a.txt", "a")
    fetch_archive(published(server, "other.zip", zipped.getvalue()), tmp_path)
    assert (tmp_path / "other" / "a.txt").read_text() == "a"


def test_a_set_of_several_files_is_gone_on_with(server, tmp_path, monkeypatch):
    archive = replace(
        published(server, "102flowers.tgz", tar_of(**{"jpg/image_00001.jpg": b"1"})), into="f", holds="jpg"
    )
    labels = replace(published(server, "imagelabels.mat", CONTENT), into="f")
    monkeypatch.setattr(Flowers102, "downloads", (archive, labels))
    server.breaks_after = 1000
    with pytest.raises(DataError, match=r"imagelabels\.mat broke off"):
        Flowers102(Flowers102.Config(), tmp_path).fetch()
    server.breaks_after = None
    Flowers102(Flowers102.Config(), tmp_path).fetch()
    assert server.starts == [0, 0, 1000]
    assert sorted(each.name for each in (tmp_path / "f").iterdir()) == ["imagelabels.mat", "jpg"]


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside-of-the-archive.txt"])
def test_members_that_lead_out_are_refused(server, tmp_path, name):
    download = published(server, "set.tgz", tar_of(**{"set/a.txt": b"1", name: b"2"}))
    (tmp_path / "root").mkdir()
    if name.startswith("/"):
        fetch_archive(download, tmp_path / "root")  # made relative, as tar does
        assert (tmp_path / "root" / "tmp").is_dir()
    else:
        with pytest.raises(DataError, match="outside"):
            fetch_archive(download, tmp_path / "root")
        assert not (tmp_path / "root" / "set").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_what_is_in_the_way_is_left_alone(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="in the way"):
        fetch_archive(published(server, "set.tgz", tar_of(**{"set/a.txt": b"1"})), tmp_path)
    assert (tmp_path / "set" / "mine.txt").read_text() == "mine"


def test_fetching_a_data_set_by_command(server, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from subnetbench.harness.cli.app import app

    files = {
        f"CUB_200_2011/{name}": content.encode()
        for name, content in {
            "images.txt": "1 001.A/1.jpg\n2 002.B/2.jpg\n3 101.C/3.jpg\n4 101.C/4.jpg\n",
            "image_class_labels.txt": "1 1\n2 2\n3 101\n4 101\n",
            **{f"images/{name}.jpg": "image" for name in ("001.A/1", "002.B/2", "101.C/3", "101.C/4")},
        }.items()
    }
    archive = replace(published(server, "CUB_200_2011.tgz", tar_of(**files)), holds="CUB_200_2011")
    monkeypatch.setattr(Cub, "downloads", (archive,))
    runner, root = CliRunner(), ("--data-root", str(tmp_path))
    fetched = runner.invoke(app, ["datasets", "fetch", "cub", *root])
    assert fetched.exit_code == 0, fetched.output
    assert str(tmp_path / "CUB_200_2011") in fetched.output
    checked = runner.invoke(app, ["datasets", "check", "cub", *root])
    assert checked.exit_code == 1
    assert "2 train images instead of 5864" in str(checked.exception)
    part = runner.invoke(app, ["datasets", "check", "cub", "--data", "partial=true", *root])
    assert part.exit_code == 0, part.output
    assert "train 1, validation 1, test 2" in part.output
    Cub(Cub.Config(), tmp_path).fetch()
    assert len(server.starts) == 1  # it is there
    with pytest.raises(UserError, match="lifted_struct"):
        Sop(Sop.Config(), tmp_path).fetch()
