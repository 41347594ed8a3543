"""Downloads a file that is to be checked into a private folder, and deletes it.

`dlltracer check` with a URL is the only command that uses the network, and it asks the named host for that file only.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from .wheel import UnreadableTarget

_URL = re.compile(r"https?://", re.IGNORECASE)
_TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""
_LARGEST = 4 << 30
"""Bytes of a file. The largest wheels on PyPI have less than 3 GB."""
_CHUNK = 1 << 20
_MOST_NAME = 255


def is_url(target: str) -> bool:
    """Return whether a target is the URL of a file, as http or https."""
    return _URL.match(target) is not None


@contextlib.contextmanager
def downloaded(url: str) -> Iterator[str]:
    """Give the path of a private copy of the file, under its own name; deleted at the end.

    A fragment `#sha256=DIGEST`, as package indexes put it behind their links, must fit the file. Raises
    `UnreadableTarget`.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UnreadableTarget(f"it is no URL: {error}") from error
    name = unquote(posixpath.basename(parts.path))
    if not name or len(name) > _MOST_NAME or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise UnreadableTarget("its URL ends with no file name")
    if parts.username is not None or parts.password is not None:
        raise UnreadableTarget("a URL with a password is not taken: it would be in every report")
    wanted = parse_qs(parts.fragment).get("sha256", [""])[0].lower()
    try:
        folder = tempfile.mkdtemp(prefix="dlltracer-check-")
    except OSError as error:
        raise UnreadableTarget(f"no folder for the download: {error.strerror or error}") from error
    try:
        path = os.path.join(folder, name)
        found = _download(url, path)
        if wanted and found != wanted:
            raise UnreadableTarget(f"its SHA-256 is {found}, and its URL says {wanted}")
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(url: str, path: str) -> str:
    """Write what the URL has to a file, and return its SHA-256. Raises `UnreadableTarget`."""
    digest, size = hashlib.sha256(), 0
    try:
        with _open(url) as answer, open(path, "xb") as file:
            announced = answer.headers.get("Content-Length", "")
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                if size > _LARGEST:
                    raise UnreadableTarget(f"it has more than {_LARGEST >> 30} GiB")
                digest.update(chunk)
                file.write(chunk)
    except HTTPError as error:
        error.close()  # it is the answer, too
        raise UnreadableTarget(f"the server answers {error.code} {error.reason}") from error
    except URLError as error:
        raise UnreadableTarget(f"it cannot be downloaded: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreadableTarget(f"it cannot be downloaded: {error or type(error).__name__}") from error
    if announced.isdecimal() and int(announced) != size:
        raise UnreadableTarget(f"the download ended after {size} of {announced} bytes")
    return digest.hexdigest()


class _SameKind(HTTPRedirectHandler):
    """Follows a redirect to http or https only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        if not is_url(newurl) or (req.type == "https" and not newurl.lower().startswith("https:")):
            fp.close()
            raise URLError(f"the server redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> http.client.HTTPResponse:
    opener = OpenerDirector()  # that of urllib.request would open file: and ftp: as well
    handlers = (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor, _SameKind)
    for handler in handlers:
        opener.add_handler(handler())
    answer = opener.open(Request(url, headers={"User-Agent": "dlltracer"}), timeout=_TIMEOUT)  # noqa: S310 - http(s) only
    assert isinstance(answer, http.client.HTTPResponse)
    return answer
