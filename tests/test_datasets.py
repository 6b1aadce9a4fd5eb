"""The data sets: found, downloaded, refused and read. Downloads come from a server on this machine."""

from __future__ import annotations

import base64
import bz2
import dataclasses
import gzip
import hashlib
import inspect
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fusionlearn import datasets, download
from fusionlearn.datasets import fetch, registry, tables
from fusionlearn.datasets.registry import Dataset, File, Source
from fusionlearn.errors import DatasetError, MissingExtra

pytest.importorskip("pooch")

# Two rows in the form of the official sheet (a first row X1 …, then the names), written with xlwt 1.3 and packed by
# zlib; cell = 100 · row + column, the label 0 and 1.
SHEET = (
    b"c-rllU1(cn7{{NJ?__D3wrRI^T4QzH*45dZe5@*KOxLbN+FEPXZiqFt8S1)pgeYzoI-R`~L_y{dVKN4KQ9mx`x2P8)B2FeK43u_)"
    b"7Yc%);KkPXJpY_L$!0HBm_sFRIKTJ#z303qZ=Un!yeIkkRKw!2H`|uzqS8lpS}uCYRn=zj<}FK*cz>}dVY&A3R;-o(RPlQFLb{yv"
    b"e%+UDxrTDRm&itMI6h$#o#pLb+E1f%xor3fmVS&OW5^h`GYxu)TLRRIQ8j`OfKA}*IPwGVR<t|=Zs%hcjooxAIoj20&EiR02lfR>"
    b"&igj{oIy*3n(1?y#ZNqIl#X>$D*sSs_TRaq-QlO>#Mf;oo6F`ivx^ks3wWIVD29oCFMm@%4%gbRY`a0+{^y15?iJdfw>gLoQSp9E"
    b"@OkpnEl%0vpn*&wbB>M}5ll*w$vGJjn1ZMvCWs3Xf^C9c!A*8KxCe}YCKv@{U>r<<+rVBBeNFT=(bq&@Gs+Wh7oR*mzze`|dL%tD"
    b")t?&XU3U&na?9YrT{}_}>Dxzn2^dL@kEc^ZgS?Z;pJyz!YpTbpO{<Ptb<C>cR-NFJ^{0o2r&1#mk*e6NilbF=tSXLI#R*U8d~%vf"
    b"XjZ~#C5%<VcqL4<5zS=xWFDC<g!g9-?91i~;av8yLU`X?uJE8wmO|V*gBRR7>u^i)GiRtCaRY8FL0%lsz53hfk?FDI6j}~pxhyTJ"
    b"8)P0(k)D(u+&Ms{Ss<mAw=VS90zQSau1DMkhWK{Cb>~>K73@5WW1hy|PJW*#$~Vc4Rq-Z{=YP55o%Z=3lbbnS7+N|QTKFz`j5>Ic"
    b"pW*)UI!xV0w{i4EDeorBwPD?WzXx0Yb~E<ag4WoJ){{d$ohKhYZ37xgW@9td>{hNy=3uj{IoTX)E;gr{o6V)>VRNf_**t1KHm}+m"
    b"HlLcGZH-zTn_n%!R;O0a7ElYa)vGn|E2!28FIyAGjcOsbCbed^kXj2{v)Wp=7PWP3Ypom`E9BU~DArlW8_0O8nq<69O)|b-O)`F!"
    b"nq>THHOY9pnq>SMHOY8bO)`G1nq<5~O)`F+nq>TXHOcq}HOY9Vnq+*Vnq+*Fnq+vhnq<67O)|bkO)}oCCK<m$O)|b!O)`F?nq<7k"
    b"%DC;KjDLv763O^;hVTXODEKn?3U~s14O{@<0#AbPfggdNf}eq3fM0>9!EeDc;1A$g@F(zR@K?}=xguk>uP|mi#@t~Sc7k2tR?q|!"
    b";LTtk*bnXmZv#icaqw<%H+Ua74ekLS26JE@d=xwgJ`TDt<~~~^os{A8gIuNfs8(vFR%)eIE@LrDKQ6E!IPjoVdXRNn|LdIRZMpV0"
    b"$^W*D(;UAF`~WvdIj-|`U{&*{g`7tDT*f8#DgR$6<sN?bJnf}vjAQSr=P&;dF{(e$C3g&7zOT?~-+y^E<NSx;|1Zp^VlD"
)

DAMAGE = "Planted-Value-7731"  # stands where a number belongs; no error may repeat it


class Server:
    """Serves `pages` (path -> bytes) on this machine; `cut` paths promise more bytes than they send."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        self.tells_length = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                if self.path not in server.pages:
                    self.send_error(404)
                    return
                content = server.pages[self.path]
                self.send_response(200)
                if server.tells_length:
                    self.send_header("Content-Length", str(len(content) * (2 if self.path in server.cut else 1)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the parent's name)
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no $FUSIONLEARN_DATA."""
    monkeypatch.delenv(fetch.VARIABLE, raising=False)
    monkeypatch.setattr(fetch, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def shared() -> Path:
    """The folder of the real data sets."""
    root = os.environ.get(fetch.VARIABLE)
    if not root or not (Path(root) / "heart_disease").is_dir():
        pytest.skip(f"{fetch.VARIABLE} names no folder with the data sets (`make test` sets it where there is one)")
    return Path(root)


Serve = Callable[..., Dataset]


@pytest.fixture
def serve(server: Server, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Make `find("tiny")` download `content` (of the form `archive`) from the server."""

    def make(content: bytes, files: tuple[File, ...], archive: str = "", expected: str | None = None) -> Dataset:
        server.pages["/tiny"] = content
        source = Source(f"{server.url}/tiny", files, archive, expected)  # type: ignore[arg-type]
        made = Dataset("tiny", "test", "1", "none", "CC0", "https://example.org/tiny", "nobody", (source,))
        monkeypatch.setitem(registry.DATASETS, "tiny", made)
        return made

    return make


def serve_real(server: Server, monkeypatch: pytest.MonkeyPatch, name: str, pages: list[bytes]) -> None:
    """Let the official sources of `name` be found on the server, hashes and all."""
    real = registry.DATASETS[name]
    sources = []
    for number, (source, content) in enumerate(zip(real.sources, pages, strict=True)):
        server.pages[f"/{name}/{number}"] = content
        sources.append(dataclasses.replace(source, url=f"{server.url}/{name}/{number}"))
    monkeypatch.setitem(registry.DATASETS, name, dataclasses.replace(real, sources=tuple(sources)))


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def official_heart(shared: Path) -> dict[str, bytes]:
    """The bytes the publisher has: the copies in the data folder have a header row and may write ? as nothing."""
    files = {}
    for hospital in datasets.HOSPITALS:
        name = f"processed.{hospital}.data"
        rows = [line.split(",") for line in (shared / "heart_disease" / name).read_text().splitlines()]
        rows = rows[1:] if rows[0][0] == "age" else rows
        files[name] = "".join(",".join(cell or "?" for cell in row) + "\n" for row in rows).encode()
    return files


# --- the records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.names())
def test_record_is_complete(name: str) -> None:
    known = datasets.record(name)
    assert known.name == name
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert all((known.domain, known.records, known.partition, known.licence, known.citation))
    assert known.page.startswith("https://")
    for source in known.sources:
        assert source.url.startswith("https://")
        assert source.files
        assert source.archive or len(source.files) == 1
        for file in source.files:
            assert Path(file.name).name == file.name
            assert file.max_bytes > 0
        for stated in (source.hash, *(file.hash for file in source.files)):
            assert stated is None or re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", stated)
    assert len({file.name for file in known.files}) == len(known.files)


def test_page_lists_every_data_set() -> None:
    page = Path(__file__).parents[1] / "docs" / "reference" / "datasets.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if re.match(r"\| `\w+` \|", line)}
    expected = set()
    for name in datasets.names():
        known = datasets.record(name)
        way = "yes" if known.sources else "by hand"
        if any(not (file.hash or source.hash) for source in known.sources for file in source.files):
            way = "yes, hash kept at first download"
        row = f"| `{name}` | {known.domain} | {known.records} | {known.partition} | {known.licence} | {way} |"
        expected.add(row)
    assert listed == expected
    functions = {match[1] for line in lines if (match := re.match(r"\| `(\w+)\(", line))}
    known_elsewhere = {"find", "names", "record", "cache_folder"}  # told in the text
    assert functions | known_elsewhere == {
        name for name in datasets.__all__ if inspect.isfunction(vars(datasets)[name])
    }


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DatasetError, match=r"no data set 'heart_diseases': did you mean 'heart_disease'\?"):
        datasets.find("heart_diseases")
    with pytest.raises(DatasetError, match=r"no data set 'zzz': there are heart_disease, "):
        datasets.find("zzz")


def test_import_needs_no_extra() -> None:
    code = "import sys; from fusionlearn import datasets; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pooch", "requests", "tqdm", "sklearn", "h5py", "xlrd"} & set(loaded)


# --- finding ------------------------------------------------------------------------------------------------------


def test_the_variable_comes_first(cache: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))
    assert datasets.find("tiny") == cache / "tiny"
    folder = tmp_path / "mine" / "tiny"
    folder.mkdir(parents=True)
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "mine"))
    assert datasets.find("tiny") == folder
    folder.rmdir()
    assert datasets.find("tiny") == cache / "tiny"


def test_the_variable_must_name_a_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"nowhere, which is not a folder: correct it or unset it"):
        datasets.find("heart_disease")


def test_a_set_without_a_download_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(DatasetError, match=r"cifar10 cannot be downloaded .* https://www.cs.toronto.edu") as caught:
        datasets.find("cifar10")
    assert fetch.VARIABLE in str(caught.value)
    assert left(cache) == []


@pytest.mark.parametrize("name", datasets.names())
def test_the_data_folder_has_every_set(name: str, shared: Path) -> None:
    assert datasets.find(name) == shared / name


@pytest.mark.parametrize("library", ["pooch", "tqdm"])
def test_missing_library_is_named(
    library: str, cache: Path, serve: Serve, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(b"x", (File("x.csv", 9),))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf'^datasets needs {library}: pip install "fusionlearn\[data\]"$'):
        datasets.find("tiny")
    assert left(cache) == []


# --- downloading --------------------------------------------------------------------------------------------------


def test_download_shows_a_bar_and_happens_once(
    cache: Path, serve: Serve, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"age\n" * 100_000
    serve(content, (File("x.csv", len(content), sha256(content)),))
    folder = datasets.find("tiny")
    out, err = capfd.readouterr()
    assert folder == cache / "tiny"
    assert (folder / "x.csv").read_bytes() == content
    assert "tiny: 100%" in err
    assert "400k/400k" in err
    assert out == ""
    assert left(cache) == ["tiny"]

    assert datasets.find("tiny") == folder
    assert server.asked == ["/tiny"]
    assert capfd.readouterr() == ("", "")


def test_download_can_be_silent(cache: Path, serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))
    datasets.find("tiny", progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_tells_no_length_gets_a_counter(
    cache: Path, serve: Serve, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.tells_length = False
    content = b"x" * download.CHUNK * 3
    serve(content, (File("x.csv", len(content), sha256(content)),))
    datasets.find("tiny")
    assert "tiny: 197kB" in capfd.readouterr().err


def test_the_wrong_file_is_refused(cache: Path, serve: Serve) -> None:
    serve(b"<html>we have moved</html>", (File("x.csv", 100, sha256(b"right")),))
    with pytest.raises(DatasetError, match=r"sent as x\.csv is not the published file .* nothing was kept: try again"):
        datasets.find("tiny")
    assert left(cache) == []


def test_md5_is_compared_too(cache: Path, serve: Serve) -> None:
    serve(b"wrong", (File("x.csv", 100, "md5:4b4c1ae33f1b9c1e0c4b6d0d4f8c2f5e"),))
    with pytest.raises(DatasetError, match="not the published file"):
        datasets.find("tiny")
    serve(b"wrong", (File("x.csv", 100, "md5:2bda2998d9b0ee197da142a0447f6725"),))
    assert datasets.find("tiny") == cache / "tiny"


def test_a_cut_connection_leaves_nothing(cache: Path, serve: Serve, server: Server) -> None:
    serve(b"half of it", (File("x.csv", 100),))  # no hash: only the length tells
    server.cut.add("/tiny")
    with pytest.raises(DatasetError, match=r"cannot download tiny from 127\.0\.0\.1 \(the connection failed"):
        datasets.find("tiny")
    assert left(cache) == []
    server.cut.clear()
    assert (datasets.find("tiny") / "x.csv").read_bytes() == b"half of it"


def test_an_interruption_leaves_nothing(cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(bar: object, num_bytes: int) -> None:
        raise KeyboardInterrupt

    serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))
    with monkeypatch.context() as patch:
        patch.setattr(download._Bar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.find("tiny")
    assert left(cache) == []
    assert datasets.find("tiny") == cache / "tiny"


def test_offline_is_one_sentence_with_the_next_step(cache: Path, serve: Serve, server: Server) -> None:
    made = serve(b"abc", (File("x.csv", 3),))
    server.pages.clear()
    with pytest.raises(DatasetError, match=r"\(the server answered 404\)"):
        datasets.find("tiny")
    server.stop()
    with pytest.raises(DatasetError) as caught:
        datasets.find("tiny")
    message = str(caught.value)
    assert message.startswith("cannot download tiny from 127.0.0.1 (the connection failed, ConnectionError): connect")
    assert f"or set {fetch.VARIABLE} to a folder that holds tiny/" in message
    assert made.page in message
    assert "\n" not in message
    assert caught.value.__suppress_context__  # nobody is shown the library's own pages of traceback
    assert left(cache) == []


def test_a_file_altered_in_the_cache_is_refused(cache: Path, serve: Serve) -> None:
    serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))
    path = datasets.find("tiny") / "x.csv"
    path.write_bytes(b"abd")
    with pytest.raises(DatasetError, match=r"x\.csv no longer has the hash recorded for it: delete .*tiny and ask"):
        datasets.find("tiny")
    path.unlink()
    with pytest.raises(DatasetError, match=r"x\.csv is missing from the cache: delete .*tiny and ask again"):
        datasets.find("tiny")


def test_a_quicker_process_wins(cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    made = serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))

    def meanwhile(wanted: Dataset, folder: Path) -> None:
        (cache / "tiny").mkdir()
        (cache / "tiny" / "x.csv").write_bytes(b"abc")

    monkeypatch.setattr(fetch, "_remember", meanwhile)
    assert datasets.find(made.name) == cache / "tiny"
    assert left(cache) == ["tiny"]


def test_a_cache_that_cannot_be_written_is_one_sentence(cache: Path, serve: Serve) -> None:
    serve(b"abc", (File("x.csv", 3, sha256(b"abc")),))
    cache.write_text("a file where the folder should be")
    with pytest.raises(DatasetError, match=rf"cannot keep tiny in the cache .* \(File exists\): .* {fetch.VARIABLE}"):
        datasets.find("tiny")


def test_the_cache_is_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the place differs on this system")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.cache_folder() == tmp_path / "fusionlearn" / "datasets"


# --- a hash nobody published --------------------------------------------------------------------------------------


def test_the_first_hash_seen_is_kept_and_compared_ever_after(cache: Path, serve: Serve) -> None:
    serve(b"first", (File("x.csv", 100),))
    folder = datasets.find("tiny")
    seen = cache / "tiny.sha256"
    assert seen.read_text() == f"{hashlib.sha256(b'first').hexdigest()}  tiny/x.csv\n"  # as sha256sum writes it

    (folder / "x.csv").write_bytes(b"other")
    with pytest.raises(DatasetError, match="no longer has the hash"):
        datasets.find("tiny")

    (folder / "x.csv").unlink()
    folder.rmdir()
    serve(b"second", (File("x.csv", 100),))
    with pytest.raises(DatasetError, match=r"not the file that was downloaded first .* delete .*tiny\.sha256"):
        datasets.find("tiny")
    assert left(cache) == ["tiny.sha256"]

    seen.unlink()
    assert (datasets.find("tiny") / "x.csv").read_bytes() == b"second"


def test_a_cache_without_the_kept_hash_is_not_trusted(cache: Path, serve: Serve) -> None:
    serve(b"first", (File("x.csv", 100),))
    datasets.find("tiny")
    (cache / "tiny.sha256").unlink()
    with pytest.raises(DatasetError, match="no longer has the hash recorded"):
        datasets.find("tiny")


# --- archives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "pack"), [("zip", zipped), ("tar", tarred)])
def test_only_the_named_members_are_unpacked(
    form: str, pack: Callable[..., bytes], cache: Path, serve: Serve, tmp_path: Path
) -> None:
    content = pack(**{"in/a.csv": b"aa", "b.csv": b"bb", "../../escaped": b"!", "/absolute/escaped": b"!"})
    serve(content, (File("a.csv", 2, sha256(b"aa"), member="in/a.csv"), File("b.csv", 2)), form, sha256(content))
    folder = datasets.find("tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.csv": b"aa", "b.csv": b"bb"}
    assert left(cache) == ["tiny", "tiny.sha256"]
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(("form", "pack"), [("zip", zipped), ("tar", tarred)])
def test_a_member_larger_than_stated_is_refused(
    form: str, pack: Callable[..., bytes], cache: Path, serve: Serve
) -> None:
    serve(pack(**{"a.csv": b"0" * 1_000_000}), (File("a.csv", 999_999),), form)
    with pytest.raises(DatasetError, match=r"a\.csv of tiny unpacks to more than the 999999 bytes"):
        datasets.find("tiny")
    assert left(cache) == []


@pytest.mark.parametrize(("form", "pack"), [("zip", zipped), ("tar", tarred)])
def test_what_is_no_archive_or_lacks_a_member_is_refused(
    form: str, pack: Callable[..., bytes], cache: Path, serve: Serve
) -> None:
    whole = pack(**{"b.csv": b"bb" * 1000})
    for content in (whole, whole[:-30], b"<html>", b""):
        serve(content, (File("a.csv", 9000),), form)
        with pytest.raises(DatasetError, match=r"not the archive it should be.* lacks one of a\.csv; see https://exam"):
            datasets.find("tiny")
        assert left(cache) == []


def test_a_folder_in_the_place_of_a_file_is_refused(cache: Path, serve: Serve) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.csv")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    serve(buffer.getvalue(), (File("a.csv", 9),), "tar")
    with pytest.raises(DatasetError, match="not the archive it should be"):
        datasets.find("tiny")


def test_an_archive_with_another_hash_is_refused_unread(cache: Path, serve: Serve) -> None:
    serve(zipped(**{"a.csv": b"aa"}), (File("a.csv", 2),), "zip", sha256(b"another"))
    with pytest.raises(DatasetError, match="is not the published file"):
        datasets.find("tiny")
    assert left(cache) == []


# --- four hospitals -----------------------------------------------------------------------------------------------


def test_heart_disease_has_the_published_counts(shared: Path) -> None:
    hospitals = datasets.heart_disease()
    assert tuple(hospitals) == datasets.HOSPITALS
    for columns in hospitals.values():
        assert tuple(columns) == datasets.HEART_COLUMNS
        assert {name: str(column.dtype) for name, column in columns.items()} == dict.fromkeys(columns, "float64") | {
            "target": "int64"
        }
    diagnoses = {name: np.bincount(columns["target"]).tolist() for name, columns in hospitals.items()}
    assert diagnoses == {
        "cleveland": [164, 55, 36, 35, 13],
        "hungarian": [188, 106],
        "switzerland": [8, 48, 32, 30, 5],
        "va": [51, 56, 41, 42, 10],
    }
    cleveland = hospitals["cleveland"]
    assert [cleveland[name][0] for name in datasets.HEART_COLUMNS] == [
        63,
        1,
        1,
        145,
        233,
        1,
        2,
        150,
        0,
        2.3,
        3,
        0,
        6,
        0,
    ]
    missing = {name: int(np.isnan(column).sum()) for name, column in cleveland.items()}
    assert missing == dict.fromkeys(datasets.HEART_COLUMNS, 0) | {"ca": 4, "thal": 2}
    assert not hospitals["switzerland"]["chol"].any()


def test_official_download_equals_the_copy(
    shared: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole way: the official archive's bytes, the hashes that are recorded, the same columns, the same CSVs."""
    serve_real(server, monkeypatch, "heart_disease", [zipped(**official_heart(shared), Index=b"not wanted")])
    official = datasets.heart_disease()  # `cache` has taken $FUSIONLEARN_DATA away
    assert left(cache / "heart_disease") == sorted(official_heart(shared))
    assert (
        (cache / "heart_disease" / "processed.va.data").read_text().startswith("63,1,4,140,260,0,1,112,1,3,2,?,?,2\n")
    )

    monkeypatch.setenv(fetch.VARIABLE, str(shared))
    copied = datasets.heart_disease()
    for hospital in datasets.HOSPITALS:
        for name in datasets.HEART_COLUMNS:
            np.testing.assert_array_equal(official[hospital][name], copied[hospital][name])
    first = datasets.export(official, tmp_path / "first")
    second = datasets.export(copied, tmp_path / "second")
    for hospital in datasets.HOSPITALS:
        assert first[hospital].read_bytes() == second[hospital].read_bytes()


def test_fed_heart_disease_is_flambys(shared: Path) -> None:
    hospitals = datasets.fed_heart_disease()
    sizes = {name: (len(train["target"]), len(test["target"])) for name, (train, test) in hospitals.items()}
    assert sizes == {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
    assert [sum(column) for column in zip(*sizes.values(), strict=True)] == [486, 254]
    sick = {name: (int(train["target"].sum()), int(test["target"].sum())) for name, (train, test) in hospitals.items()}
    assert sick == {"cleveland": (91, 48), "hungarian": (65, 33), "switzerland": (30, 15), "va": (66, 35)}
    for train, test in hospitals.values():
        for part in (train, test):
            assert tuple(part) == tuple(name for name in datasets.HEART_COLUMNS if name not in ("slope", "ca", "thal"))
            assert set(np.unique(part["target"])) <= {0, 1}
            assert not any(np.isnan(column).any() for column in part.values())


def test_fed_heart_disease_keeps_the_order_and_loses_nobody(shared: Path) -> None:
    whole = datasets.heart_disease()
    for hospital, (train, test) in datasets.fed_heart_disease().items():
        names = list(train)
        kept = np.stack([whole[hospital][name] for name in names], axis=1)
        kept = kept[~np.isnan(kept).any(axis=1)]
        kept[:, -1] = kept[:, -1] > 0
        together = [list(row) for row in kept]
        for part in (train, test):
            rest = iter(together)  # `in` on an iterator moves on: a subsequence, in order
            assert all(list(row) in rest for row in np.stack([part[name] for name in names], axis=1))
        assert sorted(together) == sorted(
            list(row) for part in (train, test) for row in np.stack([part[name] for name in names], axis=1)
        )


def test_another_seed_is_another_split(shared: Path) -> None:
    first, second = datasets.fed_heart_disease(), datasets.fed_heart_disease(seed=44)
    assert not np.array_equal(first["va"][1]["age"], second["va"][1]["age"])
    np.testing.assert_array_equal(first["va"][1]["age"], datasets.fed_heart_disease(seed=43)["va"][1]["age"])


@pytest.mark.parametrize(("sick", "stratified"), [(0, False), (1, False), (2, False), (3, True)])
def test_a_split_is_stratified_from_three_of_each_class(sick: int, stratified: bool) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    label = np.array([1] * sick + [0] * 20)
    for seed in range(5):
        train, test = tables._split({"row": np.arange(len(label)), "target": label}, seed)
        expected = model_selection.train_test_split(
            np.arange(len(label)),
            test_size=0.34,
            train_size=0.66,
            random_state=seed,
            stratify=label if stratified else None,
        )
        assert [train["row"].tolist(), test["row"].tolist()] == [sorted(part) for part in expected]


def test_fed_heart_disease_names_scikit_learn_when_it_is_missing(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtra, match=r"fed_heart_disease needs scikit-learn: pip install "):
        datasets.fed_heart_disease()


def put_heart(folder: Path, line: str) -> None:
    folder.mkdir(parents=True)
    for hospital in datasets.HOSPITALS:
        (folder / f"processed.{hospital}.data").write_text("63,1,1,145,233,1,2,150,0,2.3,3,0,6,0\n" + line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"63,1,1,{DAMAGE},233,1,2,150,0,2.3,3,0,6,0\n", "row 2, column trestbps: text where a number belongs"),
        (f"63,1,1,{DAMAGE}\n", "row 2 has 4 cells, 14 expected"),
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6,0.5\n", "row 2, column target: a whole number belongs here"),
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6,?\n", "row 2, column target: a whole number belongs here"),
    ],
)
def test_a_damaged_file_names_the_row_and_never_the_value(
    line: str, message: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_heart(tmp_path / "data" / "heart_disease", line)
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.heart_disease()
    assert DAMAGE not in "".join(traceback.format_exception(caught.value))


def test_a_folder_without_its_files_says_so(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "heart_disease"
    folder.mkdir(parents=True)
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    with pytest.raises(DatasetError, match=r"has no file processed\.cleveland\.data: put the published files there"):
        datasets.heart_disease()
    (folder / "processed.cleveland.data").write_text("\n")
    with pytest.raises(DatasetError, match=r"processed\.cleveland\.data is empty"):
        datasets.heart_disease()
    (folder / "processed.cleveland.data").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"cannot be read \(UnicodeDecodeError\)"):
        datasets.heart_disease()


def test_export_writes_plain_csv(tmp_path: Path) -> None:
    columns = {
        "age": np.array([63.0, np.nan, 0.1]),
        "class": np.array(["a", "b,c", 'd"']),
        "target": np.array([0, 1, -2]),
    }
    paths = datasets.export({"site": columns}, tmp_path / "new" / "folder")
    assert paths == {"site": tmp_path / "new" / "folder" / "site.csv"}
    assert paths["site"].read_text() == 'age,class,target\n63,a,0\n,"b,c",1\n0.1,"d""",-2\n'


# --- the other sets -----------------------------------------------------------------------------------------------


def test_credit_default_taiwan(shared: Path) -> None:
    columns = datasets.credit_default_taiwan()
    assert len(columns) == 25
    assert {(column.shape, str(column.dtype)) for column in columns.values()} == {((30_000,), "int64")}
    assert columns["default"].sum() == 6_636
    np.testing.assert_array_equal(columns["ID"], np.arange(1, 30_001))


def test_credit_default_taiwan_reads_the_official_sheet(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xlrd", reason="xlrd, of the extra `data`, is not installed")
    real = registry.DATASETS["credit_default_taiwan"]
    sheet = zlib.decompress(base64.b85decode(SHEET))
    file = dataclasses.replace(real.files[0], hash=sha256(sheet))
    server.pages["/xls"] = zipped(**{file.name: sheet})
    source = dataclasses.replace(real.sources[0], url=f"{server.url}/xls", files=(file,))
    monkeypatch.setitem(registry.DATASETS, real.name, dataclasses.replace(real, sources=(source,)))
    columns = datasets.credit_default_taiwan()
    assert list(columns)[:3] == ["ID", "LIMIT_BAL", "SEX"]
    assert columns["LIMIT_BAL"].tolist() == [101, 201]
    assert columns["default"].tolist() == [0, 1]


def test_occupancy(shared: Path) -> None:
    periods = datasets.occupancy()
    counts = {name: (len(columns["date"]), int(columns["Occupancy"].sum())) for name, columns in periods.items()}
    assert counts == {"training": (8_143, 1_729), "test": (2_665, 972), "test2": (9_752, 2_049)}
    first = {name: column[0] for name, column in periods["training"].items()}
    assert first["date"] == np.datetime64("2015-02-04T17:51:00")
    assert (first["Temperature"], first["Humidity"], first["Light"], first["CO2"]) == (23.18, 27.272, 426, 721.25)


def test_occupancy_downloads_with_the_published_hashes(
    shared: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "occupancy"
    members = {path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}
    serve_real(server, monkeypatch, "occupancy", [zipped(**members)])
    assert len(datasets.occupancy()["test2"]["CO2"]) == 9_752


def test_room_occupancy(shared: Path) -> None:
    columns = datasets.room_occupancy()
    assert np.bincount(columns["Room_Occupancy_Count"]).tolist() == [8_228, 459, 748, 694]
    assert np.unique(columns["Date"], return_counts=True)[1].tolist() == [1_462, 2_779, 1_064, 1_716, 1_063, 997, 1_048]
    assert (np.diff(columns["Time"]) > np.timedelta64(0)).all()
    assert len([name for name in columns if name[0] == "S"]) == 16


def test_room_occupancy_reads_days_with_slashes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "room_occupancy"
    folder.mkdir(parents=True)
    path = folder / "Occupancy_Estimation.csv"
    path.write_bytes(b"Date,Time,S1_Temp,Room_Occupancy_Count\r\n2017/12/22,9:05:01,24.5,1\r\n")
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    assert datasets.room_occupancy()["Time"].tolist() == [np.datetime64("2017-12-22T09:05:01").item()]
    path.write_text(f"Date,Time,S1_Temp,Room_Occupancy_Count\n{DAMAGE},9:05:01,24.5,1\n")
    with pytest.raises(DatasetError, match="column Date holds something that is no date") as caught:
        datasets.room_occupancy()
    assert DAMAGE not in "".join(traceback.format_exception(caught.value))


def test_wisdm_har(shared: Path) -> None:
    columns = datasets.wisdm_har()
    assert len(columns) == 45
    assert "UNIQUE_ID" not in columns
    assert sorted(np.unique(columns["user"])) == list(range(1, 37))
    counts = dict(zip(*np.unique(columns["class"], return_counts=True), strict=True))
    assert counts == {
        "Walking": 2081, "Jogging": 1625, "Upstairs": 632, "Downstairs": 528, "Sitting": 306, "Standing": 246,
    }  # fmt: skip
    missing = {name: int(np.isnan(columns[name]).sum()) for name in columns if columns[name].dtype == np.float64}
    assert {name: count for name, count in missing.items() if count} == {"XPEAK": 381, "YPEAK": 131, "ZPEAK": 103}


def test_mnist(shared: Path) -> None:
    digits = datasets.mnist()
    assert {part: columns["image"].shape for part, columns in digits.items()} == {
        "train": (60_000, 28, 28),
        "test": (10_000, 28, 28),
    }
    assert digits["train"]["image"].dtype == np.uint8
    assert digits["train"]["label"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert digits["test"]["label"].dtype == np.int64


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def test_mnist_reads_the_official_files(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 251
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.array([7, 3])))
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    digits = datasets.mnist()
    np.testing.assert_array_equal(digits["test"]["image"], images)
    assert digits["train"]["label"].tolist() == [7, 3]
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.array([7, 3]))[:-4])
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read \(EOFError\)"):
        datasets.mnist()


def test_usps(shared: Path) -> None:
    pytest.importorskip("h5py", reason="h5py, of the extra `data`, is not installed")
    digits = datasets.usps()
    assert {part: columns["image"].shape for part, columns in digits.items()} == {
        "train": (7_291, 16, 16),
        "test": (2_007, 16, 16),
    }
    image = digits["train"]["image"]
    assert (image.dtype, image.min(), image.max()) == (np.float32, 0, 1)
    counts = [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    assert np.bincount(digits["train"]["label"]).tolist() == counts


def test_usps_reads_the_official_files(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "usps"
    folder.mkdir(parents=True)
    (folder / "usps.bz2").write_bytes(bz2.compress(b"1 1:-1 2:1 256:0.5\n10 1:-1.0\n"))
    (folder / "usps.t.bz2").write_bytes(bz2.compress(b"7 1:-1\n"))
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    digits = datasets.usps()
    assert digits["train"]["label"].tolist() == [0, 9]
    image = digits["train"]["image"][0]
    assert (image[0, 0], image[0, 1], image[0, 2], image[15, 15]) == (0, 1, 0.5, 0.75)
    (folder / "usps.t.bz2").write_bytes(bz2.compress(b"7 300:1\n"))
    with pytest.raises(DatasetError, match=r"usps\.t\.bz2 cannot be read \(IndexError\)"):
        datasets.usps()


def test_pneumoniamnist(shared: Path) -> None:
    parts = datasets.pneumoniamnist()
    counts = {part: np.bincount(columns["label"]).tolist() for part, columns in parts.items()}
    assert counts == {"train": [1_214, 3_494], "val": [135, 389], "test": [234, 390]}
    assert parts["train"]["image"].shape == (4_708, 28, 28)
    assert parts["train"]["image"].dtype == np.uint8


def test_an_npz_never_runs_code(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "pneumoniamnist"
    folder.mkdir(parents=True)
    np.savez(folder / "pneumoniamnist.npz", train_images=np.array([{}], dtype=object))
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "data"))
    with pytest.raises(DatasetError, match=r"pneumoniamnist\.npz cannot be read \(ValueError\)"):
        datasets.pneumoniamnist()


@pytest.mark.parametrize(
    ("loader", "files", "side"),
    [
        (datasets.cifar10, {part: f"cifar10_{part}_jpeg.npz" for part in ("train", "test")}, 32),
        (
            datasets.office_caltech10,
            {part: f"office10_{part}_jpeg160.npz" for part in ("amazon", "caltech10", "dslr", "webcam")},
            160,
        ),
    ],
)
def test_jpeg_sets(loader, files, side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path / loader.__name__
    folder.mkdir()
    monkeypatch.setenv("FUSIONLEARN_DATA", str(tmp_path))
    shades = (10, 200)
    for name in files.values():
        contents = []
        for shade in shades:
            file = io.BytesIO()
            pillow.new("RGB", (side, side), (shade, 50, 90)).save(file, "JPEG", quality=95)
            contents.append(file.getvalue())
        offsets = np.cumsum([0, *map(len, contents)])
        jpeg = np.frombuffer(b"".join(contents), np.uint8)
        np.savez(folder / name, jpeg=jpeg, offsets=offsets, labels=np.array([3, 7], np.uint8), classes=["a"])
    parts = loader()
    assert list(parts) == list(files)
    for part in parts.values():
        assert part["image"].shape == (2, side, side, 3)
        assert part["image"].dtype == np.uint8
        np.testing.assert_allclose(part["image"][:, 0, 0, 0], shades, atol=3)
        assert part["label"].tolist() == [3, 7]
    np.savez(folder / next(iter(files.values())), jpeg=jpeg[:50], offsets=offsets, labels=np.zeros(2, np.uint8))
    with pytest.raises(DatasetError, match=r"_jpeg\d*\.npz cannot be read \(\w+Error\)"):
        loader()
