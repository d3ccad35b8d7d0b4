"""Deposits, and getting parts of them by name: what does not match is refused, what broke off goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vaco import cli
from vaco.archive import Archive
from vaco.campaign import fetch as fetching
from vaco.campaign.deposit import CRATE, SUMS, Part, deposit
from vaco.campaign.fetch import fetch
from vaco.campaign.tiers import load_tier
from vaco.errors import UserError

ROOT = Path(__file__).parents[2]


def git(place: Path, *words: str) -> None:
    config = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *config, *words], cwd=place, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository of this kind: two archives, a figure, what is cited and locked."""
    place = tmp_path_factory.mktemp("repository")
    for name in ("requirements.lock", "CITATION.cff", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for tier in ("centres", "lm_desk"):
        shutil.copytree(ROOT / "results" / tier / "archive", place / "results" / tier / "archive")
    shutil.copytree(ROOT / "paper/figures/demonstrations", place / "paper/figures/demonstrations")
    git(place, "init", "--quiet")
    git(place, "add", "--all", "--force")
    git(place, "commit", "--quiet", "--message=all")
    return place


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deposits") / "one"
    deposit(repository, out)
    return out


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_file_is_described_and_has_its_checksum(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names == {
        *("requirements.lock", "CITATION.cff", "LICENSE", "README.md", "source.tar.gz", "figures.tar", CRATE, SUMS),
        *("centres.tar", "lm_desk.tar"),
    }
    sums = dict(reversed(line.split("  ")) for line in (made / SUMS).read_text().splitlines())
    assert sums == {name: digest(made / name) for name in names - {SUMS}}
    assert subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=made, check=False).returncode == 0


def test_the_description_is_an_ro_crate(made: Path, repository: Path) -> None:
    """What version 1.1 asks for: the descriptor, the root with its four properties, a File for each part."""
    content = json.loads((made / CRATE).read_text())
    assert content["@context"] == "https://w3id.org/ro/crate/1.1/context"
    graph = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(graph) == len(content["@graph"]) and all("@type" in entity for entity in graph.values())
    assert graph[CRATE]["about"] == {"@id": "./"}
    assert graph[CRATE]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = graph["./"]
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert root["datePublished"][:4].isdigit() and root["license"]["@id"].startswith("https://spdx.org/")
    references = [root["license"], root["citation"], root["mentions"], *root["author"], *root["hasPart"]]
    assert all(reference["@id"] in graph for reference in references)
    files = {part["@id"]: graph[part["@id"]] for part in root["hasPart"]}
    assert files.keys() == {path.name for path in made.iterdir()} - {CRATE, SUMS}
    for name, file in files.items():
        assert file["@type"] == "File" and file["sha256"] == digest(made / name) and file["description"]
        assert int(file["contentSize"]) == (made / name).stat().st_size
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    assert graph["#vaco"]["identifier"] == head and head in (made / "README.md").read_text()


def test_the_same_commit_gives_the_same_bytes(made: Path, repository: Path, tmp_path: Path) -> None:
    deposit(repository, tmp_path / "two")
    assert (made / SUMS).read_text() == (tmp_path / "two" / SUMS).read_text()


def test_what_is_in_it_is_what_was_there(made: Path, repository: Path, tmp_path: Path) -> None:
    with tarfile.open(made / "centres.tar") as packed:
        packed.extractall(tmp_path)
        assert {member.mtime for member in packed} == {0} and {member.uid for member in packed} == {0}
    assert Archive(tmp_path).digest == Archive(repository / "results/centres/archive").digest
    with tarfile.open(made / "source.tar.gz") as packed:
        assert "vaco/results/centres/archive/runs.parquet" in packed.getnames()


def test_what_no_deposit_can_be_made_of_is_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        deposit(repository, tmp_path / "full")
    with pytest.raises(UserError, match="use a clone"):
        deposit(tmp_path, tmp_path / "out")
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "LICENSE").write_text("other")
    with pytest.raises(UserError, match="commit them first"):
        deposit(copy, tmp_path / "out")
    git(copy, "checkout", "LICENSE")
    with pytest.raises(UserError, match="none of the runs of the tier 'desk' has its policy here"):
        deposit(copy, tmp_path / "out2", tiers=[load_tier(ROOT / "config/desk.yaml")])


def test_the_media_types_are_those_of_the_files() -> None:
    assert [Part(Path(n), "").kind for n in ("a.tar", "a.tar.gz", "a.json", "LICENSE")] == [
        *("application/x-tar", "application/gzip", "application/json", "text/plain"),
    ]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """The source of a deposit of this repository as it is committed, unpacked in a folder of its own at each call."""
    base = tmp_path_factory.mktemp("unpacked")
    done = subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", base / "clone"], check=False)
    if done.returncode:
        pytest.skip("this is no checkout of git")
    deposit(base / "clone", base / "deposit")

    def unpack() -> Path:
        place = Path(tempfile.mkdtemp(dir=base))
        with tarfile.open(base / "deposit" / "source.tar.gz") as packed:
            packed.extractall(place)
        return place / "vaco"

    yield unpack


def draws_every_figure(place: Path, command: list[str], environment: dict[str, str]) -> None:
    """What the repository shows is drawn, but for the theory, which a command of its own draws; nothing trains."""
    drawn = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stdout[-1000:] + drawn.stderr[-3000:]
    made = {path.relative_to(place / "build/paper") for path in (place / "build/paper/figures").rglob("*.pdf")}
    shown = {path.relative_to(place / "paper") for path in (place / "paper/figures").rglob("*.pdf")}
    assert made >= {path for path in shown if "theory" not in path.parts} and len(made) > 15
    assert not (place / "results/runs").exists()


@pytest.mark.slow
def test_a_deposit_of_this_repository_draws_its_figures(unpacked: Callable[[], Path]) -> None:
    """With the packages that are here, and few resamples."""
    place = unpacked()
    settings = ["--config", "bootstrap={repetitions: 100}"]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "all_figures", *settings]
    draws_every_figure(place, command, os.environ | {"PYTHONPATH": str(place / "src"), "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("VACO_CI_PACKAGE") != "1", reason="VACO_CI_PACKAGE=1 installs gigabytes")
def test_where_there_is_nothing_but_python_it_draws_them_too(unpacked: Callable[[], Path], tmp_path: Path) -> None:
    """What its README says to do, without any environment: `make figures`, which installs the lock and draws."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    draws_every_figure(unpacked(), ["make", "figures"], kept | bare)


# --- fetch


class Ranged(BaseHTTPRequestHandler):
    """A server that knows byte ranges and breaks off as often as it is told to."""

    folder: Path
    breaks = 0
    asked: list[str | None]

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.asked.append(self.headers["Range"])
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        if path.suffix == ".tar" and type(self).breaks > 0:
            type(self).breaks -= 1
            self.wfile.write(rest[: len(rest) // 2])
            return
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ranged(made: Path) -> Iterator[tuple[str, Any]]:
    handler = type("Handler", (Ranged,), {"folder": made, "asked": [], "breaks": 0})
    yield from serve(handler, handler)


@pytest.fixture
def plain(made: Path) -> Iterator[tuple[str, Any]]:
    """Python's own server, which knows no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    yield from serve(partial(Quiet, directory=str(made)), Quiet)


def serve(handler: Any, shown: Any) -> Iterator[tuple[str, Any]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", shown
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`fetch` into an empty folder of results, without pauses; what it says is in `said`."""
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    said: list[str] = []
    call = partial(fetch, results=tmp_path / "results", config=tmp_path / "deposit.yaml", say=said.append)
    call.said = said  # type: ignore[attr-defined]
    return call


def test_an_archive_comes_from_a_folder_a_file_address_and_a_server(
    get: Any, made: Path, plain: tuple[str, Any], tmp_path: Path
) -> None:
    for number, location in enumerate((str(made), made.as_uri(), plain[0])):
        place = get("centres", location=location, out=tmp_path / str(number))
        assert place == tmp_path / str(number)
        assert Archive(place).digest == Archive(ROOT / "results/centres/archive").digest
    assert get("centres", location=str(made)) == tmp_path / "results/centres/archive"
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["centres"]
    # There already, and the same: fine. Another: not touched.
    assert get("centres", location=str(made)) == tmp_path / "results/centres/archive"
    with pytest.raises(UserError, match="holds something else"):
        get("lm_desk", location=str(made), out=tmp_path / "results/centres/archive")
    assert Archive(tmp_path / "results/centres/archive").tier == "centres"


def test_a_transfer_that_breaks_off_goes_on_where_it_was(get: Any, ranged: tuple[str, Any], tmp_path: Path) -> None:
    location, server = ranged
    server.breaks = 3
    place = get("centres", location=location)
    assert Archive(place).tier == "centres"
    starts = [asked for asked in server.asked if asked]
    assert len(starts) == 3 and len(set(starts)) == 3, server.asked
    assert sum("going on at byte" in sentence for sentence in get.said) == 3


def test_one_that_breaks_off_for_good_is_gone_on_with_by_the_same_command(
    get: Any, ranged: tuple[str, Any], tmp_path: Path
) -> None:
    location, server = ranged
    server.breaks = fetching.TRIES
    with pytest.raises(UserError, match=r"broke off 5 times .* the same command goes on"):
        get("centres", location=location)
    (part,) = (tmp_path / "results").rglob("*.part")
    there = part.stat().st_size
    assert there > 0
    server.asked.clear()
    assert Archive(get("centres", location=location)).tier == "centres"
    assert f"bytes={there}-" in server.asked


def test_a_server_without_ranges_begins_anew(get: Any, plain: tuple[str, Any], tmp_path: Path) -> None:
    part = tmp_path / "results" / ".fetched-centres" / ".centres.tar.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else, of an earlier call")
    assert Archive(get("centres", location=plain[0])).tier == "centres"


def test_what_was_there_whole_needs_no_more_bytes(
    get: Any, ranged: tuple[str, Any], made: Path, tmp_path: Path
) -> None:
    part = tmp_path / "results" / ".fetched-centres" / ".centres.tar.part"
    part.parent.mkdir(parents=True)
    shutil.copy(made / "centres.tar", part)
    assert Archive(get("centres", location=ranged[0])).tier == "centres"


def test_what_does_not_match_is_refused_and_deleted(get: Any, made: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(made, forged)
    (forged / "centres.tar").write_bytes((made / "lm_desk.tar").read_bytes())
    with pytest.raises(UserError, match=r"has the checksum .* and .* was expected: it was deleted"):
        get("centres", location=str(forged))
    assert not list((tmp_path / "results").rglob("*.part")) and not (tmp_path / "results" / "centres").exists()
    # A forger who changes the list, too, is found out by the checksum in the repository.
    sums = (forged / SUMS).read_text().replace(digest(made / "centres.tar"), digest(forged / "centres.tar"))
    (forged / SUMS).write_text(sums)
    (tmp_path / "deposit.yaml").write_text(
        f"location: {forged}\nfiles:\n  centres.tar: {digest(made / 'centres.tar')}\n"
    )
    assert sum("no forgery" in sentence for sentence in get.said) == 1
    with pytest.raises(UserError, match="was expected"):
        get("centres")
    assert sum("no forgery" in sentence for sentence in get.said) == 1


@pytest.mark.parametrize(
    ("name", "location", "message"),
    [
        ("centers", "{made}", "did you mean 'centres'"),
        ("centres", "", "nobody says where deposits are"),
        ("centres", "/nowhere/at/all", "is no folder, and no address"),
        ("centres", "ftp://example.org", "is no folder, and no address"),
        ("centres", "file:///nowhere/at/all", "there is no file"),
        ("centres", "http://127.0.0.1:1", "cannot read http://127.0.0.1:1/SHA256SUMS"),
        ("figures.tar", "{made}", "give --out"),
    ],
)
def test_mistakes_are_one_sentence(get: Any, made: Path, name: str, location: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get(name, location=location.format(made=made))


def test_other_files_come_as_they_are(get: Any, made: Path, tmp_path: Path) -> None:
    assert digest(get("figures.tar", location=str(made), out=tmp_path)) == digest(made / "figures.tar")
    assert get("LICENSE", location=str(made), out=tmp_path).read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("kind", ["../out", "/tmp/vaco-out", "link", "device"])
def test_a_hostile_tar_with_a_right_checksum_writes_nothing(get: Any, tmp_path: Path, kind: str) -> None:
    """Whoever writes a deposit writes its checksums."""
    place = tmp_path / "hostile"
    place.mkdir()
    for name in ("centres", "policies-trial"):
        with tarfile.open(place / f"{name}.tar", "w") as packed:
            member = tarfile.TarInfo("a/manifest.json" if kind in ("link", "device") else kind)
            member.type = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.get(kind, tarfile.REGTYPE)
            member.linkname = "/etc/passwd" if kind == "link" else ""
            packed.addfile(member)
    (place / SUMS).write_text("".join(f"{digest(path)}  {path.name}\n" for path in place.glob("*.tar")))
    for name in ("centres", "policies-trial"):
        with pytest.raises(UserError):
            get(name, location=str(place))
    made = [path for path in tmp_path.rglob("*") if "hostile" not in path.parts and path.is_file()]
    assert {path.suffix for path in made} <= {".tar"} and not Path("/tmp/vaco-out").exists()


def test_policies_go_to_their_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, results = tmp_path / "copy", tmp_path / "there" / "results"
    shutil.copytree(repository, copy)
    (copy / "trial.yaml").write_text(
        "tier: trial\ndescription: one\nenvironments: [InvertedPendulum-v5]\nalgorithms: [ppo]\ncapacities: [1]\n"
        "seeds: [0]\nsteps: 4096\nevaluation: {points: 1, episodes: 1}\nreference: {episodes: 2, seed: 0}\n"
    )
    (run,) = load_tier(copy / "trial.yaml").planned()
    folder = copy / "results/runs" / run.config.place
    words = [*run.command[1:], "--out", str(folder), "--quiet"]
    subprocess.run([sys.executable, "-m", "vaco", *words], check=True)
    git(copy, "config", "core.excludesFile", "/dev/null")
    deposit(copy, tmp_path / "deposit", tiers=[load_tier(copy / "trial.yaml")])
    place = fetch("policies-trial", location=str(tmp_path / "deposit"), results=results, say=lambda _: None)
    got = place / run.config.place
    assert {path.name: digest(path) for path in got.iterdir()} == {p.name: digest(p) for p in folder.iterdir()}
    assert cli.run(["evaluate", "--run", str(got), "--episodes", "1"]) == 0
    (got / "policy.safetensors").unlink()
    fetch("policies-trial", location=str(tmp_path / "deposit"), results=results, say=lambda _: None)
    assert (got / "policy.safetensors").read_bytes() == (folder / "policy.safetensors").read_bytes()
