"""Get archives and policies by name from where a deposit lies: a folder or an HTTP address; by checksum, resuming.

`config/deposit.yaml` says where, and which checksum each file must have; a checksum that is there, in the repository,
keeps whoever holds the files from changing them. Without it, the list that lies beside the files is taken, which guards
against broken transfers only, and it is said.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import quote, urljoin, urlsplit

from pydantic import Field

from vaco.archive import SUMS as ARCHIVE_SUMS
from vaco.archive import Archive
from vaco.campaign import archives
from vaco.campaign.deposit import POLICIES, SUMS
from vaco.campaign.tier_file import Closed
from vaco.errors import UserError, nearest
from vaco.runs import atomic
from vaco.runs.explain import check
from vaco.runs.folder import EVALS, MANIFEST, PHASES, POLICY
from vaco.runs.tables import read_json, sha256_file
from vaco.yaml_file import read_yaml

CONFIG = Path("config/deposit.yaml")
TRIES = 5
"""Times that a transfer that broke off is taken up again before it is given up."""
PAUSE = 2.0
"""Seconds before the second try; each further pause is twice as long, and ten seconds at most."""
_BLOCK = 1 << 20
_TIMEOUT = 60.0

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class DepositFile(Closed):
    """``config/deposit.yaml``: where the files of a deposit are, and their checksums."""

    location: str = ""
    files: dict[str, Digest] = Field(default={})


def settings(path: Path = CONFIG) -> DepositFile:
    """Read the configuration; without a file, nothing is configured.

    Raises:
        UserError: it has a mistake.
    """
    return check(read_yaml(path) or {}, DepositFile, str(path)) if path.is_file() else DepositFile()


class Source:
    """Where files are: an address that begins with http://, https:// or file://, or a folder.

    Args:
        location: as it is configured or given.
        say: called with each sentence for the user.

    Raises:
        UserError: it is no such place.
    """

    def __init__(self, location: str, say: Callable[[str], None]) -> None:
        self.say = say
        scheme = urlsplit(location).scheme
        if not location:
            raise UserError(f"nobody says where deposits are: give --location, or write location in {CONFIG}")
        if scheme in ("http", "https", "file"):
            self.base = location.rstrip("/") + "/"
        elif Path(location).is_dir():
            self.base = Path(location).resolve().as_uri() + "/"
        else:
            raise UserError(f"'{location}' is no folder, and no address that begins with http:// or file://")

    def open(self, name: str, start: int = 0) -> tuple[IO[bytes], int]:
        """Open a file.

        Args:
            name: its name.
            start: from which byte; servers may not know how.

        Returns:
            The stream, and the byte that it begins with.

        Raises:
            OSError, HTTPException: it cannot be opened now.
            UserError: there is no such file.
        """
        address = urljoin(self.base, quote(name))
        request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing beyond what was got: the whole is compared with its checksum
                return io.BytesIO(), start
            if error.code in (404, 403, 410):
                raise UserError(f"there is no file {address} (HTTP {error.code}): look at the location") from None
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, FileNotFoundError | IsADirectoryError):
                raise UserError(f"there is no file {address}: look at the location") from None
            raise
        if address.startswith("file:"):
            answer.fp.seek(start)  # the address was opened as a file
            return answer, start
        return answer, start if answer.status == 206 else 0

    def sums(self) -> dict[str, str]:
        """Checksums by name, from the list that lies beside the files.

        Raises:
            UserError: it cannot be read.
        """
        try:
            stream, _ = self.open(SUMS)
            with stream:
                text = stream.read().decode("utf-8", "replace")
        except (OSError, HTTPException) as error:
            raise UserError(
                f"cannot read {self.base}{SUMS} ({error}): ask again later, or another --location"
            ) from None
        return {m[2]: m[1] for m in re.finditer(r"^([0-9a-f]{64}) [ *](\S+)$", text, re.MULTILINE)}

    def get(self, name: str, sha256: str, path: Path) -> None:
        """Bring a file here, going on where an earlier call broke off.

        Args:
            name: its name there.
            sha256: what its content must hash to.
            path: where it goes; beside it, `.part` holds what is there so far.

        Raises:
            UserError: it broke off too often, or its content is another, which is then deleted.
        """
        if path.is_file() and sha256_file(path) == sha256:
            return
        part = path.with_name(f".{path.name}.part")
        problem: Exception | None = None
        for attempt in range(TRIES):
            if attempt:
                self.say(
                    f"{name} broke off ({problem}): going on at byte {part.stat().st_size if part.exists() else 0:,}"
                )
                time.sleep(min(PAUSE * 2 ** (attempt - 1), 10.0))
            try:
                self._append(name, part)
                break
            except (OSError, HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
                    raise atomic.write_error(part, error) from error
                problem = error
        else:
            raise UserError(
                f"{self.base}{name} broke off {TRIES} times ({problem}): the same command goes on from there"
            )
        found = sha256_file(part)
        if found != sha256:
            part.unlink()
            raise UserError(
                f"{self.base}{name} has the checksum {found[:16]}..., and {sha256[:16]}... was expected: it was "
                "deleted; it is another file than the one that was deposited"
            )
        part.replace(path)

    def _append(self, name: str, part: Path) -> None:
        start = part.stat().st_size if part.exists() else 0
        stream, begins = self.open(name, start)
        with stream, part.open("ab" if begins else "wb") as out:
            expected: int | None = getattr(stream, "length", None)  # servers may not say
            got = 0
            while block := stream.read(_BLOCK):
                out.write(block)
                got += len(block)
        if expected is not None and got < expected:
            raise ConnectionError(f"{expected - got:,} bytes are missing")


def fetch(
    name: str,
    *,
    location: str = "",
    results: Path,
    out: Path | None = None,
    config: Path = CONFIG,
    say: Callable[[str], None],
) -> Path:
    """Get a part of a deposit and unpack it where it belongs.

    Args:
        name: a tier, whose archive goes to `results/TIER/archive`; `policies-TIER`, whose run folders go to
            `results/runs`; or another file of the deposit, which goes to `out` as it is.
        location: where from; by default as configured.
        results: the folder of results.
        out: where to instead; needed for other files.
        config: the configuration.
        say: called with each sentence for the user.

    Returns:
        The folder or file.

    Raises:
        UserError: nothing is configured, there is no such name, it does not match its checksum, or there is something
            else where it would go.
    """
    known = settings(config)
    source = Source(location or known.location, say)
    listed = known.files or source.sums()
    file = next((one for one in (name, f"{name}.tar", f"{name}.tar.gz") if one in listed), None)
    if file is None:
        names = [one.removesuffix(".gz").removesuffix(".tar") for one in listed]
        raise UserError(f"the deposit has no '{name}': {nearest(name, names)}")
    if not known.files:
        say(f"{config} names no checksums, so those beside the files are taken: they show broken transfers, no forgery")
    if file != f"{name}.tar":
        if out is None:
            raise UserError(f"'{file}' is no archive and no policies: give --out, the folder that it should go to")
        out.mkdir(parents=True, exist_ok=True)
        source.get(file, listed[file], out / file)
        return out / file
    policies = name.startswith(POLICIES)
    place = out or (results / archives.FOLDERS if policies else results / name / archives.ARCHIVE)
    cache = results / f".fetched-{name}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        source.get(file, listed[file], cache / file)
        with tempfile.TemporaryDirectory(dir=cache) as scratch, tarfile.open(cache / file) as packed:
            _unpack(packed, Path(scratch).resolve())
            (_place_policies if policies else _place_archive)(Path(scratch), place)
    except tarfile.TarError as error:
        raise UserError(f"{file} is what was deposited, but no archive that can be unpacked ({error})") from None
    except OSError as error:
        raise atomic.write_error(cache, error) from error
    shutil.rmtree(cache)
    return place


def _unpack(packed: tarfile.TarFile, place: Path) -> None:
    """Write the files of an archive below a folder; what Python 3.11.4 has for it, Debian 12's 3.11.2 lacks.

    Raises:
        tarfile.TarError: a member is neither file nor folder, or would lie outside.
    """
    for member in packed:
        target = (place / member.name).resolve()
        if not (member.isfile() or member.isdir()) or not target.is_relative_to(place):
            raise tarfile.TarError(f"'{member.name}' is no file in it")
        stream = packed.extractfile(member)  # None of a folder
        if stream is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, target.open("wb") as sink:
                shutil.copyfileobj(stream, sink)


def _place_archive(unpacked: Path, place: Path) -> None:
    """Put an archive where it belongs, whole; the same one may be there, no other.

    Raises:
        UserError: another one is there, or it is damaged.
    """
    fetched = Archive(unpacked)
    if place.exists():
        if (place / ARCHIVE_SUMS).is_file() and Archive(place).digest == fetched.digest:
            return
        raise UserError(f"{place} holds something else than what was fetched: move it away, or give another --out")
    place.parent.mkdir(parents=True, exist_ok=True)
    unpacked.rename(place)
    unpacked.mkdir()  # which its owner removes


def _place_policies(unpacked: Path, place: Path) -> None:
    """Put run folders where they belong; of a run that is there, only the policy, if it lacks it.

    Raises:
        UserError: a policy is not that of its manifest, or another run is where one would go.
    """
    found = sorted(unpacked.rglob(MANIFEST))
    if not found:
        raise UserError("what was fetched holds no run: look at what was deposited")
    for manifest in found:
        record, folder = read_json(manifest), place / manifest.parent.relative_to(unpacked)
        checksums = record.get("checksums") if isinstance(record, dict) else None
        if not isinstance(checksums, dict) or sha256_file(manifest.with_name(POLICY)) != checksums.get(POLICY):
            raise UserError(f"the policy of {folder.name} is not that of its manifest: the deposit is damaged")
        there = folder / MANIFEST
        if there.is_file() and read_json(there).get("checksums", {}).get(POLICY) != checksums[POLICY]:
            raise UserError(f"{folder} holds another run than what was fetched: move it away, or give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        for name in (PHASES, EVALS, POLICY, MANIFEST):  # the manifest last: a folder with one is complete
            if not (folder / name).exists():
                manifest.with_name(name).replace(folder / name)
