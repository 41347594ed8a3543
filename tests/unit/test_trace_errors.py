"""The errors of a start, as scripts that know only the standard exceptions meet them."""

from __future__ import annotations

import errno

from dlltracer.errors import TracePermissionError


def test_a_refused_trace_is_a_permission_error_like_any_other() -> None:
    error = TracePermissionError("StartTrace", "run it as Administrator")
    assert isinstance(error, PermissionError)
    assert (error.errno, error.winerror) == (errno.EACCES, 5)
    assert str(error) == error.strerror
    assert str(error) == "StartTrace was refused (Windows error 5, access denied): run it as Administrator"
