"""The side-by-side assemblies that a manifest asks for.

Source: MS Learn "Manifest Files Reference" (Application Manifests).
"""

from __future__ import annotations

import re

from ..model.pe import AssemblyReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ASSEMBLIES = 1000

_DEPENDENT = "dependentAssembly"
_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))
_NAME = re.compile(r"(/?)(?:[\w.-]+:)?([\w.-]+)")
# The first letter of a name is where no other letter of it stands before: without that, a long name costs its square.
_ATTRIBUTE = re.compile(r"""(?<![\w:.-])([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def parse_assemblies(manifest: bytes) -> tuple[AssemblyReference, ...]:
    """Parse the dependent assemblies of a manifest, in order. Never raises.

    Only the tags are looked at, in one pass: a document that is not well-formed is taken as far as it goes, and no
    entity is ever expanded.
    """
    text = _decode(manifest)
    if _DEPENDENT not in text:  # nearly always
        return ()
    found: list[AssemblyReference] = []
    is_inside = False
    for tag in _tags(text):
        match = _NAME.match(tag)
        if match is None:
            continue
        if match[2] == _DEPENDENT:
            is_inside = not match[1]
        elif match[2] == "assemblyIdentity" and is_inside and len(found) < MAX_ASSEMBLIES:
            is_inside = False  # one identity for each
            given = {match[1]: match[2] or match[3] or "" for match in _ATTRIBUTE.finditer(tag)}
            if given.get("name"):
                found.append(
                    AssemblyReference(
                        given["name"],
                        given.get("version"),
                        given.get("processorArchitecture"),
                        given.get("publicKeyToken"),
                    )
                )
    return tuple(found)


def _decode(manifest: bytes) -> str:
    for mark, encoding in _BOMS:
        if manifest.startswith(mark):
            return manifest[len(mark) :].decode(encoding, "replace")
    return manifest.decode("utf-8", "replace")


def _tags(text: str) -> Iterator[str]:
    """What stands between < and >, without comments and character data."""
    at = text.find("<")
    while at >= 0:
        opening, closing = "<", ">"
        for special, end in (("<!--", "-->"), ("<![CDATA[", "]]>")):
            if text.startswith(special, at):
                opening, closing = special, end
        stop = text.find(closing, at + len(opening))
        if stop < 0:
            return
        if opening == "<":
            yield text[at + 1 : stop]
        at = text.find("<", stop + len(closing))
