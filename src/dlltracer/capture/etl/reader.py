"""A recorded ETW session as a saved trace."""

from __future__ import annotations

import ntpath
from pathlib import Path

from ...errors import NoSuchProcess
from ...model.process import TracedProcess
from ...model.recording import Losses, Recording
from ...model.saved import HostFacts, SavedTrace
from ..windows.command_line import split_command_line
from ..windows.etw.loader_merge import merge_messages
from .images import Images
from .logfile import LogfileHeader, filetime_to_epoch
from .processes import ProcessLifetime, ProcessLifetimes
from .scan import Scan, scan_etl

BACKEND = "etl"
_UNLOADS = (
    "a recorded session does not tell a load that failed from an image that was freed: every unload is shown as such"
)


def read_etl(
    path: str | Path, *, process: str | None = None, pid: int | None = None, startup: bool = False
) -> SavedTrace:
    """Read a recorded ETW session (.etl) of any Windows, on any system.

    Arguments: `process` and `pid`, of which processes to tell: the file's name of a program ("python.exe"; case does
    not matter), a process id, or both; of all when neither is given. `startup`: tell also of the images that were there
    when the session began, as loads without a time.

    A damaged file is read as far as possible: `recording.losses` counts what is lost, `problems` says what it was.
    Raises `NotATraceFile`; `NoSuchProcess` when the file has nothing of what was asked for; `OSError`.
    """
    scan = scan_etl(path, pid=pid, startup=startup)
    lives = ProcessLifetimes(scan.processes)
    images = Images(scan, lives)
    name = None if process is None else ntpath.basename(process)
    chosen = [life for life in lives if pid in (None, life.pid) and (name is None or life.is_called(name))]
    first: ProcessLifetime | None = None
    wanted = None if name is None and pid is None else chosen
    merged = merge_messages(images.events(wanted), images.messages(wanted))
    if name is not None or pid is not None:
        if not chosen:
            raise NoSuchProcess(_in_words(name, pid), _names(lives))
        first = chosen[0]
    undecodable = scan.damage.count + lives.undecodable + images.undecodable
    header = scan.header
    recording = Recording(
        BACKEND,
        merged.events,
        first.pid if first else None,
        Losses(header.events_lost if header else 0, header.buffers_lost if header else 0, undecodable),
        (*_notes(scan, images, startup), *merged.notes),
        tuple(_traced(life, images) for life in chosen),
    )
    return SavedTrace(
        recording,
        what=(first.command_line or first.shown_name) if first else ntpath.basename(str(path)),
        started=filetime_to_epoch(header.started) if header else None,
        host=_host(header),
        status=first.status if first and first.ended is not None else None,
        problems=tuple(scan.damage.problems),
    )


def _in_words(name: str | None, pid: int | None) -> str:
    if pid is None:
        return f"process of {name!r}"
    return f"process {pid}" if name is None else f"process {pid} of {name!r}"


def _names(lives: ProcessLifetimes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(life.shown_name for life in lives if life.shown_name))


def _traced(life: ProcessLifetime, images: Images) -> TracedProcess:
    program = life.program
    started = images.epoch(life.begun) if life.begun is not None else None
    if started is None and life.created is not None:
        started = filetime_to_epoch(life.created)
    return TracedProcess(
        life.pid,
        life.parent,
        split_command_line(life.command_line) if life.command_line else None,
        (images.show(program) or program) if program else life.name,
        started,
        images.epoch(life.ended) if life.ended is not None else None,
        life.status if life.ended is not None else None,
    )


def _host(header: LogfileHeader | None) -> HostFacts:
    if header is None:
        return HostFacts("windows")
    return HostFacts("windows", f"Windows NT {header.major}.{header.minor} build {header.build}")


def _notes(scan: Scan, images: Images, startup: bool) -> tuple[str, ...]:
    counts, header = scan.counts, scan.header
    notes = [
        f"the file has {counts.loads} loads and {counts.unloads} unloads of images, of all processes; "
        f"{counts.there_at_start} images were there when it began, {counts.there_at_end} when it ended"
    ]
    if counts.there_at_start and not startup:
        notes.append("images that were there when the session began are counted, and not shown")
    if counts.unloads:
        notes.append(_UNLOADS)
    if images.twice:
        notes.append(f"{images.twice} image events were told by two providers: shown once")
    if not scan.devices and counts != type(counts)():
        notes.append("the file does not say which volume has which drive letter: paths are the kernel's")
    if header is None:
        notes.append("the file's description of itself is damaged: there are no times")
    elif not header.ended:
        notes.append("the session was not stopped: what its last buffers had is not in the file")
    if scan.strange:
        notes.append(f"{scan.strange} events of other kinds (messages, instances) were passed over")
    return tuple(notes)
