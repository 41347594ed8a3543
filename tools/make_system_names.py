"""Writes the names that Windows has of its own into src/dlltracer/knowledge.

    python tools/make_system_names.py [FOLDER OF MINGW-W64'S IMPORT LIBRARIES]

Needs the Debian package mingw-w64-x86-64-dev and binutils (x86_64-w64-mingw32-dlltool). The names in import libraries
are the facts that a linker needs; mingw-w64's are in the public domain. A list from any single Windows would be of that
version only; this one has names of all versions, so that it says "a name of Windows", not "there on every Windows".
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

KNOWLEDGE = Path(__file__).parents[1] / "src" / "dlltracer" / "knowledge"
LIBRARIES = Path("/usr/x86_64-w64-mingw32/lib")
DLLTOOL = "x86_64-w64-mingw32-dlltool"

# Files of System32 of Windows 10 and 11, documented in MS Learn's reference of the Windows API or met in what Windows'
# own contracts lead to, and not among mingw-w64's libraries. The three of ICU came with Windows 10 1703 and 1903.
DOCUMENTED = """
bcryptprimitives.dll cldapi.dll combase.dll coremessaging.dll cryptbase.dll d3d10_1.dll d3d10core.dll d3d10level9.dll
d3d10warp.dll d3d11on12.dll d3d12core.dll dbgcore.dll dbgmodel.dll dcomp.dll directml.dll dsparse.dll dsrole.dll
dxcore.dll elscore.dll firewallapi.dll gdi32full.dll icu.dll icuin.dll icuuc.dll iertutil.dll kernel.appcore.dll
kernelbase.dll ktmw32.dll logoncli.dll magnification.dll mdmregistration.dll mmdevapi.dll mscoree.dll msdelta.dll
msvcp_win.dll ncryptsslp.dll netprofm.dll netutils.dll ninput.dll nlaapi.dll nsi.dll ntmarta.dll odbccp32.dll
profapi.dll rometadata.dll samcli.dll sas.dll sechost.dll sensorsapi.dll shcore.dll srpapi.dll srvcli.dll tbs.dll
ucrtbase.dll uiautomationcore.dll uiribbon.dll umpdc.dll vaultcli.dll virtdisk.dll wcmapi.dll webauthn.dll
webservices.dll wer.dll win32u.dll winbio.dll wincorlib.dll windows.storage.dll windows.ui.dll windowscodecsext.dll
winnsi.dll winsqlite3.dll winusb.dll wkscli.dll wldp.dll wofutil.dll wsmsvc.dll wwapi.dll xaudio2_8.dll xaudio2_9.dll
xinput1_4.dll xinput9_1_0.dll xinputuap.dll xmllite.dll xolehlp.dll
"""

HEADER = """\
# {what}
# Made by tools/make_system_names.py from the import libraries of mingw-w64{more}. Do not edit.
"""


def read_names(library: Path) -> set[str]:
    """The names of the DLLs that an import library leads to, lower case; none if it is no import library."""
    done = subprocess.run([DLLTOOL, "-I", str(library)], capture_output=True, text=True, check=False)
    return {line.strip().lower() for line in done.stdout.splitlines()} if done.returncode == 0 else set()


def read_exclusions(path: Path) -> list[tuple[str, bool]]:
    """Pattern, and whether it is an exception (a name of Windows' own after all)."""
    lines = (line for line in path.read_text(encoding="ascii").splitlines() if line and not line.startswith("#"))
    return [(pattern, reason == "!") for pattern, _, reason in (line.partition("\t") for line in lines)]


def is_excluded(name: str, exclusions: list[tuple[str, bool]]) -> bool:
    """Whether the first pattern that matches excludes the name."""
    return next((not allowed for pattern, allowed in exclusions if fnmatch.fnmatchcase(name, pattern)), False)


def main() -> None:
    """Reads every library of the folder, writes both tables, says how long they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else LIBRARIES
    names = set(DOCUMENTED.split()).union(*map(read_names, sorted(folder.glob("*.a"))))
    exclusions = read_exclusions(KNOWLEDGE / "not_system.txt")
    contracts = {n.removesuffix(".dll").rpartition("-")[0] for n in names if n.startswith(("api-ms-", "ext-ms-"))}
    system = {
        name for name in names
        if not name.startswith(("api-ms-", "ext-ms-"))
        and name.endswith((".dll", ".drv", ".cpl", ".ocx", ".ax", ".acm"))
        and not is_excluded(name, exclusions)
    }  # fmt: skip
    _write("system_dlls.txt", "Names of files that are Windows' own, of all its versions.", system, " and MS Learn")
    _write("api_sets.txt", "Contracts of Windows (API sets), without the last number, which does not count.", contracts)


def _write(name: str, what: str, entries: set[str], more: str = "") -> None:
    text = HEADER.format(what=what, more=more) + "".join(f"{entry}\n" for entry in sorted(entries))
    (KNOWLEDGE / name).write_text(text, encoding="ascii")
    print(f"{name}: {len(entries)} entries, {len(text)} bytes")


if __name__ == "__main__":
    main()
