"""The folder of a run: what may be in it, who may write to it, and how it becomes complete.

While a run is under way its folder holds ``run.lock`` (see `lock`), ``run.json`` (whose run it is), ``checkpoints/``
and the rows so far (see `live`); once complete, exactly ``manifest.json``, ``phases.parquet``, ``evals.parquet``,
``policy.safetensors``, of a run with a recorded schedule ``schedule.parquet``, and ``log/`` of loggers that were asked
for. The manifest is written last, so a folder with a manifest is complete. Policy and schedule may be missing from a
complete folder (they are not archived), and a policy alone may be left over (Snakemake deletes the outputs it knows
before it runs a job again).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.runs import atomic, checkpoint, provenance, tables
from vaco.runs.identity import SCHEMA, RunId, recorded_id
from vaco.runs.live import LIVE, LOGS
from vaco.runs.lock import STALE_AFTER, RunLock
from vaco.runs.preemption import Interrupted

MANIFEST, PHASES, EVALS, POLICY = "manifest.json", "phases.parquet", "evals.parquet", "policy.safetensors"
SCHEDULE = "schedule.parquet"  # of a run that followed or made a recorded one, see `vaco.runs.schedule`
NOT_ARCHIVED = (POLICY, SCHEDULE)  # what a finished run's folder may lack
LOCK, MARKER, CHECKPOINTS = "run.lock", "run.json", "checkpoints"
# Of another version of these, a run that is resumed would end with other bits than either version gives.
DETERMINING = ("mujoco", "torch", "numpy")
_OURS = (MANIFEST, PHASES, EVALS, POLICY, SCHEDULE, LOCK, MARKER, CHECKPOINTS, LOGS)

Status = Literal["new", "resumable", "complete"]


class RunFolder:
    """A run's folder, locked for as long as the ``with`` statement lasts.

    Entering creates the folder if needed and refuses one that is not this run's; a refusal leaves nothing behind.
    Leaving releases the lock and, if no checkpoint was written, removes whatever else entering put there; an interrupt
    (`KeyboardInterrupt`) goes on as `preemption.Interrupted`, which says what is left to continue from.

    Args:
        path: the folder.
        run_id: what the run is, see `identity`.
        config: the flat configuration behind it, so that a refusal can say where two runs differ; plain JSON.
        rebuild: makes a configuration of settings, to recognise runs from before there were training versions.
        stale_after: seconds, see `lock.STALE_AFTER`.

    Raises:
        UserError: on entering, if another process holds the folder, if it holds another run, a damaged one or files
            that are no run's, or if it is not a writable folder.
    """

    def __init__(
        self,
        path: Path,
        run_id: RunId,
        *,
        config: Mapping[str, Any],
        rebuild: Callable[[Mapping[str, Any]], Any],
        stale_after: float = STALE_AFTER,
    ) -> None:
        self.path = Path(path)
        self.run_id, self.rebuild = run_id, rebuild
        # As it will come back from a file: tuples are lists there.
        self.config: dict[str, Any] = json.loads(json.dumps(dict(config), allow_nan=False))
        self._lock = RunLock(self.path / LOCK, stale_after)
        self._status: Status | None = None
        self._created = self._stopped = False
        self._machines: list[dict[str, Any]] = []

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go while the run is under way; `checkpoint.save` creates it."""
        return self.path / CHECKPOINTS

    def status(self) -> Status:
        """What was found on entering, or ``complete`` after `finish`."""
        return self._entered()

    def heartbeat(self) -> None:
        """Show that this process lives; call it at least every minute or so.

        Raises:
            UserError: another process has taken the folder over; this one must stop.
        """
        self._lock.heartbeat()

    @property
    def record(self) -> Mapping[str, Any]:
        """The manifest of a complete run, else the marker of the one under way."""
        return self._record(self.path / (MANIFEST if self._entered() == "complete" else MARKER))

    def note_stop(self, why: str) -> None:
        """Enter why training stopped by itself; its rows so far then stay, also without a checkpoint."""
        with suppress(UserError):
            tables.write_json(self.path / MARKER, {**self._record(self.path / MARKER), "stopped": why})
        self._stopped = True

    def require_inputs(self, found: Mapping[str, str], more: Mapping[str, Any] | None = None) -> None:
        """Refuse to go on with a run whose inputs besides settings and code have changed; else record them.

        Args:
            found: a hash of the content of each, by what it is in words; of those that are known now.
            more: further facts for the record of a run that begins.

        Raises:
            UserError: one was another when the run was begun.
        """
        record = dict(self.record)
        # Of a run that has saved nothing yet, only this process has read anything.
        recorded = None if self._entered() == "new" else record.get("inputs")
        before: dict[str, str] = recorded if isinstance(recorded, dict) else {}
        what = "a finished run" if self._entered() == "complete" else "an unfinished run"
        for name, digest in found.items():
            if before.get(name, digest) != digest:
                raise UserError(
                    f"{self.path} holds {what} with another content of its {name} (hash {before[name][:12]} there, "
                    f"{digest[:12]} here): put back what it was, give another --out, or delete that folder first"
                )
        if self._entered() != "complete" and (not before.keys() >= found.keys() or more):
            added = {key: value for key, value in (more or {}).items() if key not in record}
            tables.write_json(self.path / MARKER, {**record, **added, "inputs": {**before, **found}})

    def finish(
        self,
        *,
        phases: Mapping[str, NDArray[Any]],
        evals: Mapping[str, NDArray[Any]],
        policy: Mapping[str, NDArray[Any]] | None,
        policy_meta: Mapping[str, Any],
        manifest: Mapping[str, Any],
        more: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
    ) -> None:
        """Write the final files, the manifest last, then delete checkpoints and marker.

        Killed on the way, the run resumes from its last checkpoint and writes them again.

        Args:
            phases: columns of ``phases.parquet``.
            evals: columns of ``evals.parquet``.
            policy: arrays of ``policy.safetensors``, read with `checkpoint.read`; None keeps no policy.
            policy_meta: plain data kept with the policy.
            manifest: from `provenance.manifest`; the checksums and ``"status": "complete"`` are added here, and, if the
                run was resumed on another machine or with other packages, ``processes``: all of them in turn.
            more: columns of further tables, by file name.

        Raises:
            UserError: a file cannot be written, or the folder was taken over; the checkpoints are still there.
            ValueError: the manifest is of another run.
        """
        if self._entered() == "complete" or recorded_id(manifest, self.rebuild) != self.run_id:
            raise ValueError("only an unfinished run can be finished, and with its own manifest")
        self.heartbeat()
        tables.write_parquet(self.path / PHASES, phases)
        tables.write_parquet(self.path / EVALS, evals)
        (self.path / POLICY).unlink(missing_ok=True)
        if policy is not None:
            with atomic.writing(self.path / POLICY) as stream:
                checkpoint.write(stream, policy, dict(policy_meta))
        for name, columns in (more or {}).items():
            tables.write_parquet(self.path / name, columns)
        written = [PHASES, EVALS, *([] if policy is None else [POLICY]), *(more or {})]
        checksums = {name: tables.sha256_file(self.path / name) for name in written}
        begun: dict[str, Any] = self._record(self.path / MARKER) if (self.path / MARKER).exists() else {}
        kept: dict[str, Any] = {key: begun[key] for key in begun.keys() & {"inputs", "started_in"}}
        record = {**manifest, **kept, "checksums": checksums, "status": "complete"}
        if len(self._machines) > 1:
            record["processes"] = self._machines
        tables.write_json(self.path / MANIFEST, record)
        self._status = "complete"
        self._remove_working_files()

    def __enter__(self) -> Self:
        try:
            self._created = _make(self.path)
            self._refuse_strangers()
            self._lock.acquire()
            atomic.remove_temporaries(self.path)
            # Looked at again now that nobody else can change it.
            self._refuse_strangers()
            self._status = self._inspect()
            if self._status == "complete":
                self._remove_working_files()
            else:
                # Now, not when the run ends: the repository may have moved on by then.
                provenance.process_revision(), provenance.source_digest()
                self._sign()
        except OSError as error:
            self._leave()
            raise atomic.write_error(self.path, error) from error
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete, saved = self._status == "complete", checkpoint.exists(self.checkpoints)
        if not (complete or saved or self._stopped) and self._lock.held():  # else it is another process's now
            self._remove_working_files()
        self._leave()
        if isinstance(value, KeyboardInterrupt) and not complete:
            raise Interrupted(
                f"the same command continues from the last checkpoint in {self.checkpoints}"
                if saved
                else "no checkpoint had been written, so the same command starts from the beginning"
            ) from value

    def _sign(self) -> None:
        """Write into the marker whose run this is and on which machines it has been under way, if that is news.

        Nothing is written otherwise, so that resuming needs no room on the disk.

        Raises:
            UserError: the run was begun with other versions of the packages that determine its bits.
        """
        here = provenance.machine()
        marker = self._record(self.path / MARKER) if (self.path / MARKER).exists() else None
        self._machines = [here]
        if marker is not None and self._status == "resumable":
            before = marker.get("processes")
            if not isinstance(before, list) or not before or not isinstance(before[-1], dict):
                return  # written by a version of this package that did not say
            self._require_same_packages(before[-1], here)
            self._machines = before if before[-1] == here else [*before, here]
            if changed := _surroundings(before[-1], here):
                print(
                    f"vaco: {self.path} was begun with other surroundings ({changed}), so its bits may be those of "
                    "neither; the manifest will name both",
                    file=sys.stderr,
                    flush=True,
                )
        if marker is None or marker.get("processes") != self._machines or "stopped" in marker:
            run = {"config_hash": self.run_id.config_hash, "training_version": self.run_id.version}
            kept = dict(marker) if marker is not None and self._status == "resumable" else {}
            kept.pop("stopped", None)
            record = {**kept, "schema": SCHEMA, **run, "config": self.config, "processes": self._machines}
            tables.write_json(self.path / MARKER, record)

    def _require_same_packages(self, before: dict[str, Any], here: dict[str, Any]) -> None:
        """Refuse to resume with other versions of the packages that determine a run's bits and that this process uses.

        Raises:
            UserError: there is one.
        """
        versions = before.get("versions")
        for name in DETERMINING:
            theirs, ours = versions.get(name) if isinstance(versions, dict) else None, here["versions"][name]
            if name in sys.modules and theirs and ours and theirs != ours:
                raise UserError(
                    f"the unfinished run in {self.path} was begun with {name} {theirs}, and {ours} is installed here: "
                    f"install {name} {theirs} to finish it, or delete the folder to start again"
                )

    def _entered(self) -> Status:
        if self._status is None:
            raise RuntimeError("a run folder can be used only within its 'with' statement")
        return self._status

    def _leave(self) -> None:
        """Release the lock; remove the folder if it was made here and nothing was put into it."""
        self._lock.release()
        self._status = None
        if self._created:
            with suppress(OSError):
                self.path.rmdir()

    def _remove_working_files(self) -> None:
        """Delete what only a run under way needs, the marker last: without it checkpoints would be nobody's."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        with suppress(OSError):
            for name in (*LIVE, MARKER):
                (self.path / name).unlink(missing_ok=True)

    def _refuse_strangers(self) -> None:
        """Refuse a folder with files that are no run's: most likely the path is a mistake."""
        more = LIVE if (self.path / MARKER).exists() else ()  # rows of a run under way are nobody's without it
        strangers = sorted(p.name for p in self.path.iterdir() if not (_is_ours(p.name) or p.name in more))
        if strangers:
            raise UserError(
                f"{self.path} holds '{strangers[0]}', which is not part of a run: give --out an empty or new folder"
            )

    def _inspect(self) -> Status:
        """Find out how far the run is.

        Raises:
            UserError: the folder holds another run or a damaged one.
        """
        manifest, marker = self.path / MANIFEST, self.path / MARKER
        if manifest.exists():
            record = self._record(manifest)
            self._require_same(record, "a finished run")
            self._require_whole(record)
            return "complete"
        resumable = checkpoint.exists(self.checkpoints)
        if marker.exists():
            self._require_same(self._record(marker), "an unfinished run")
        elif resumable:
            raise UserError(
                f"{self.path} holds checkpoints but no {MARKER} that says of which run: "
                "delete the folder, or give another --out"
            )
        return "resumable" if resumable else "new"

    def _record(self, path: Path) -> dict[str, Any]:
        try:
            record = tables.read_json(path)
        except UserError:
            record = None
        if not isinstance(record, dict):
            raise self._damaged(f"{path.name} cannot be read")
        return record

    def _require_same(self, record: dict[str, Any], what: str) -> None:
        """Refuse the record of another run, saying where the two differ if it can be told."""
        theirs = recorded_id(record, self.rebuild)
        if theirs == self.run_id:
            return
        if theirs is None or theirs.config_hash != self.run_id.config_hash:
            what += f" of another configuration{_differences(record.get('config'), self.config)}"
        else:
            what += f" of training version {theirs.version}, and the code here has version {self.run_id.version}"
        raise UserError(f"{self.path} holds {what}: give another --out, or delete that folder first")

    def _require_whole(self, manifest: dict[str, Any]) -> None:
        """Compare the files with the checksums in the manifest; only the policy may be missing."""
        checksums = manifest.get("checksums")
        if manifest.get("status") != "complete" or not isinstance(checksums, dict):
            raise self._damaged(f"{MANIFEST} is incomplete")
        for name in (PHASES, EVALS, POLICY, SCHEDULE):
            path = self.path / name
            if not path.exists():
                if name in NOT_ARCHIVED:
                    continue
                raise self._damaged(f"{name} is missing")
            try:
                same = tables.sha256_file(path) == checksums.get(name)
            except OSError:
                same = False
            if not same:
                raise self._damaged(f"{name} does not match its checksum in {MANIFEST}")

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"the run in {self.path} is damaged, {reason}: delete the folder and run the same command again"
        )


def _surroundings(before: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Where two records of `provenance.machine` differ in what may decide bits, as a list; empty if nowhere.

    The host's name is none of it. Python and Gymnasium are; the other packages make a run refuse (`DETERMINING`).
    """

    def facts(machine: Mapping[str, Any]) -> dict[str, Any]:
        versions = machine.get("versions")
        known = versions if isinstance(versions, dict) else {}
        chosen = machine.get("environment")
        named = {"processor": machine.get("cpu"), "python": known.get("python"), "gymnasium": known.get("gymnasium")}
        return named | (chosen if isinstance(chosen, dict) else {})

    old, new = facts(before), facts(here)
    names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)}, here {new.get(name)}" for name in names)


def discard_other(path: Path, run_id: RunId, rebuild: Callable[[Mapping[str, Any]], Any]) -> bool:
    """Remove from a folder the unfinished run of another configuration or training version.

    A finished run stays, and so does one that cannot be read, which `RunFolder` refuses.

    Args:
        path: the folder; it need not exist.
        run_id: what the run is that is wanted there.
        rebuild: see `RunFolder`.

    Returns:
        Whether there was such a run.

    Raises:
        HeldError: another process is at work there.
        UserError: the folder is not writable.
    """
    marker = path / MARKER
    if not marker.is_file() or (path / MANIFEST).exists():
        return False
    lock = RunLock(path / LOCK)
    lock.acquire()
    try:
        if not marker.is_file() or (path / MANIFEST).exists():  # finished meanwhile
            return False
        record = tables.read_json(marker)
        if not isinstance(record, dict) or recorded_id(record, rebuild) == run_id:
            return False
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        for name in (*LIVE, MARKER):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    finally:
        lock.release()
    return True


def _make(path: Path) -> bool:
    """Create a folder with its parents; False if it was there.

    Raises:
        UserError: something else has that name, or it cannot be created.
    """
    if path.is_dir():
        return False
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        if path.is_dir():  # created by another process this very moment
            return False
        raise UserError(f"{path} is a file, but a run needs a folder: give another --out") from error
    except OSError as error:
        raise UserError(
            f"cannot create the run folder {path} ({error.strerror}): give --out a place that is writable"
        ) from error
    return True


def _is_ours(name: str) -> bool:
    """Whether a file of this name belongs in a run folder; NFS keeps deleted open files under a name of its own."""
    temporary = name.endswith(".tmp") and name.startswith(tuple(f".{ours}." for ours in _OURS))
    return name in _OURS or temporary or name.startswith(".nfs")


def _differences(theirs: Any, ours: Mapping[str, Any]) -> str:
    """Name the settings in which two configurations differ, as a clause in parentheses; empty if none can be named."""
    if not isinstance(theirs, dict) or not ours:
        return ""
    keys = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    shown = [f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here" for key in keys[:4]]
    if len(keys) > len(shown):
        shown.append(f"and {len(keys) - len(shown)} more")
    return f" ({', '.join(shown)})" if shown else ""
