"""Removes names of people and machines, and secrets, from a saved trace before it is given away.

Every text of the trace is gone through (`PrivateText` says for what), and the same thing gets the same word
everywhere: paths stay different where they were, so that rules and readers come to the same conclusions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ..model.events import DebugEvent
from ..model.run import HostFacts, SavedTrace
from .drawing import number

_SEPARATOR = r"(?:[\\/]|%2[Ff]|%5[Cc])"
_STARTS = (
    r"(?<![\w.~)\]}-])", r"(?<=[A-Za-z]:)", r"(?<=[A-Za-z]\$)", r"(?<=/[a-z])", r"(?<=/var)", r"(?<=/export)",
    r"(?<=/usr)", r"(?<=Volume\d)", r"(?<=Volume\d\d)", r"(?<=%3[Aa])",
)  # fmt: skip
"""What a path to a home folder begins behind: a drive, a device, a share, /mnt/c; or nothing that is part of a path."""
_WORD = r"[^\\/:*?\"<>|\s'\0;,&%)\]}]+"
_WORDS = rf"[^\\/:*?\"<>|\r\n\t\0;'%]{{1,64}}?(?={_SEPARATOR}|[\"';]|$)"
_LEAD = rf"(?:{'|'.join(_STARTS)}){_SEPARATOR}{{1,4}}"
_IN_WEB = r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/\\]{0,255}/(?:home|users)/"
_HOME = re.compile(
    rf"(?P<lead>{_LEAD}home{_SEPARATOR}{{1,4}}|{_IN_WEB})(?P<name>{_WORD})"
    rf"|(?P<lead2>{_LEAD}(?:users|documents\ and\ settings){_SEPARATOR}{{1,4}})(?P<name2>{_WORDS}|{_WORD})",
    re.IGNORECASE,
)
_OF_ALL = frozenset(("public", "default", "default user", "all users", "shared", ".", "..", "lost+found"))
"""Folders beside those of users."""
_PLACEHOLDER = re.compile(r"(?:user|host|secret)\d+")
_SHORT_NAME = re.compile(r"([^~]{1,6})~\d")

_WORDS_OF_PATHS = (
    "admin administrator app apps bin build builder circleci code codespace conda data debian dev docker etc fedora "
    "gitpod guest home jenkins jovyan lib linux local main mnt opt proc project projects public python root run runner "
    "share site src srv sys system test tests tmp ubuntu user users usr vagrant var vscode windows wine work"
)
ORDINARY_WORDS = frozenset(_WORDS_OF_PATHS.split())
"""Words that say nothing of a person, and stand in many paths for something else: replaced in home folders only."""
_MOST_NAMES = 500
"""Of users, of machines, of secrets. What comes after them shares one word."""
_SHORTEST_NAME = 3
_SHORTEST_SECRET = 8
"""A shorter one is replaced where it stands, and not looked for elsewhere."""

_SENSITIVE = (
    r"(?:(?<!publickey)tokens?|passw(?:or)?d|passphrase|(?<![A-Za-z])pwd(?=\s*=)|secrets?|api[_-]?key|(?<![A-Za-z])key(?![A-Za-z])|"
    r"credentials?|authorization)"
)
SECRET_NAME = re.compile(rf"(?i:{_SENSITIVE})|[a-z]Key\b")
"""What variables and options for secrets have in their names."""
_NOT_SECRET = ("PWD", "OLDPWD")
_VALUE = r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"'&;,)\]}]+)"
_ASSIGNED = re.compile(rf"(?P<name>(?i:{_SENSITIVE})[\w.-]{{0,40}}[\"']?\s*=\s*){_VALUE}")
_QUOTED = re.compile(rf"(?P<name>(?i:{_SENSITIVE})[\w.-]{{0,40}}[\"']?\s*:\s*)(?P<value>\"[^\"]+\"|'[^']+')")
_OPTION = re.compile(rf"(?P<name>--?[\w-]{{0,40}}?(?i:{_SENSITIVE})[\w-]{{0,40}}\s+)(?!-){_VALUE}")
_BEARER = re.compile(r"(?P<name>\b(?:[Bb]earer|[Bb]asic)\s+)(?P<value>[A-Za-z0-9._~+/=-]{8,})")
_KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|pypi-[\w-]{16,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}"
    r"|sk-[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
_IN_URL = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)(?P<user>[^\s/@:\"'<>\\]{1,200})(?::(?P<word>[^\s/@\"'<>\\]{0,400}))?@"
)
_MAY_MATCH = re.compile(
    r"(?i:home|users|settings|token|pass|pwd|secret|key|credential|auth|bearer|basic)|://|AKIA|xox|eyJ|gh[pousr]_|glpat|pypi-|sk-"
)


class PrivateText:
    """Replaces what is private in texts. The same thing gets the same word, in whatever case it is written.

    Arguments: `users`, `hosts`: names that are known from elsewhere.
    """

    def __init__(self, users: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._users: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._secrets: dict[str, str] = {}
        self._known: re.Pattern[str] | None = None
        self._done: dict[str, str] = {}
        for name in users:
            self._user(name)
        for name in hosts:
            self.host(name)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of users, machines and secrets that were met."""
        return len(set(self._users.values())), len(set(self._hosts.values())), len(self._secrets)

    def replace(self, text: str) -> str:
        """Return the text without what is private."""
        known = self._done.get(text)
        if known is not None:
            return known
        found = text
        if _MAY_MATCH.search(text):
            found = _IN_URL.sub(self._replace_login, found)
            for pattern in (_ASSIGNED, _QUOTED, _OPTION, _BEARER):
                found = pattern.sub(self._replace_value, found)
            found = _KNOWN_TOKEN.sub(lambda match: self.secret(match[0]), found)
            found = _HOME.sub(self._replace_home, found)
        known_names = self._pattern()
        if known_names is not None:
            found = known_names.sub(self._replace_known, found)
        self._done[text] = found
        return found

    def secret(self, value: str) -> str:
        """Return the word for a secret."""
        if not value or _PLACEHOLDER.fullmatch(value):
            return value
        if value not in self._secrets:
            if len(self._secrets) >= _MOST_NAMES:
                return "secret0"
            self._secrets[value] = f"secret{len(self._secrets) + 1}"
            self._forget()
        return self._secrets[value]

    def _user(self, name: str) -> str:
        key = name.casefold()
        if not name or key in _OF_ALL or _PLACEHOLDER.fullmatch(key):
            return name
        if key not in self._users:
            if len(self._users) >= _MOST_NAMES:
                return "user0"
            short = _SHORT_NAME.fullmatch(key)
            same = [known for known in self._users if short and known.replace(" ", "").startswith(short[1])]
            self._users[key] = self._users[same[0]] if same else f"user{len(set(self._users.values())) + 1}"
            self._forget()
        return self._users[key]

    def host(self, name: str) -> str:
        """Return the word for a machine. Its whole name and the first part of it are the same machine."""
        key = name.casefold().rstrip(".")
        if not key or key == "localhost" or _PLACEHOLDER.fullmatch(key):
            return name
        if key not in self._hosts:
            word = f"host{len(set(self._hosts.values())) + 1}"
            self._hosts.setdefault(key, word)
            self._hosts.setdefault(key.partition(".")[0], word)
            self._forget()
        return self._hosts[key]

    def _forget(self) -> None:
        """Something new is known: what was replaced before may have it."""
        self._known = None
        self._done.clear()

    def _pattern(self) -> re.Pattern[str] | None:
        """Everything known by name, wherever it stands as a word of its own."""
        if self._known is None:
            words = [name for name in (*self._users, *self._hosts) if _is_telling(name)]
            words += [secret for secret in self._secrets if len(secret) >= _SHORTEST_SECRET]
            if not words:
                return None
            longest_first = sorted(words, key=len, reverse=True)
            either = "|".join(re.escape(word) for word in longest_first)
            self._known = re.compile(rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])", re.IGNORECASE)
        return self._known

    def _replace_known(self, match: re.Match[str]) -> str:
        text, key = match[0], match[0].casefold()
        if text in self._secrets:
            return self._secrets[text]
        return self._users.get(key) or self._hosts.get(key) or text

    def _replace_home(self, match: re.Match[str]) -> str:
        lead, name = match["lead"] or match["lead2"], match["name"] or match["name2"]
        first = name.split(" ")[0]
        if first != name and first.casefold() in self._users:
            return f"{lead}{self._user(first)}{name[len(first) :]}"  # the rest is prose
        return f"{lead}{self._user(name)}"

    def _replace_value(self, match: re.Match[str]) -> str:
        value = match["value"]
        if match["name"].rstrip("= \t") in _NOT_SECRET:
            return match[0]
        quote = value[0] if value[:1] in "\"'" and len(value) > 1 else ""
        inner = value.strip(quote) if quote else value
        return f"{match['name']}{quote}{self.secret(inner)}{quote}"

    def _replace_login(self, match: re.Match[str]) -> str:
        word = "" if match["word"] is None else f":{self.secret(match['word'])}"
        user = match["user"]
        shown = self._user(user) if match["word"] is not None or user.casefold() in self._users else user
        return f"{match['scheme']}{shown}{word}@"


def _is_telling(name: str) -> bool:
    """Return whether a name can be looked for anywhere, as it is no word that stands for other things as well."""
    return len(name) >= _SHORTEST_NAME and name not in ORDINARY_WORDS and "~" not in name


AnyT = TypeVar("AnyT")

_WORDS_OF_FORMAT = frozenset(("is", "system", "kind", "phase", "outcome", "state", "manager", "problem", "change"))
"""Keys of plain values that hold words of ours."""


class Redactor:
    """Redacts one value after the other; what it met once it knows from then on.

    Arguments: `users`, `hosts`: names known beforehand, for values that are handed over as they come.
    """

    def __init__(self, users: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> None:
        self._text = PrivateText(users, hosts)

    def add_secrets(self, values: Iterable[str]) -> None:
        """Take note of values that are secrets, wherever they stand. Words too short to be looked for are left out."""
        for value in values:
            if len(value) >= _SHORTEST_SECRET:
                self._text.secret(value)

    def learn(self, value: object) -> None:
        """Take note of all names in a value."""
        self._change(value, "")

    def redact_trace(self, trace: SavedTrace) -> SavedTrace:
        """Return the trace, redacted; a note of its recording says so."""
        self.learn(trace)
        done = self.redact(trace)
        notes = (*done.recording.notes, self.describe())
        return replace(done, recording=replace(done.recording, notes=notes))

    def redact(self, value: AnyT) -> AnyT:
        """Return the value with every text in it redacted. The payload of a raw event is left out."""
        changed: AnyT = self._change(value, "")
        return changed

    def describe(self) -> str:
        """Return a sentence on what was replaced."""
        users, hosts, secrets = self._text.counts
        names = f"the names of {number(users, 'user')} and {number(hosts, 'machine')}"
        return f"redacted: {names}, {number(secrets, 'secret')}; what has no usual form is not found"

    def _change(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return value if key in _WORDS_OF_FORMAT else self._text.replace(value)
        if isinstance(value, DebugEvent):
            return replace(value, data=b"")
        if isinstance(value, tuple | list):
            return self._change_list(value, key)
        if isinstance(value, Mapping):
            return {name: self._change(item, name) for name, item in value.items()}
        return self._change_fields(value) if is_dataclass(value) and not isinstance(value, type) else value

    def _change_fields(self, value: Any) -> Any:
        changed: dict[str, Any] = {}
        if isinstance(value, HostFacts) and value.name:
            value = replace(value, name=self._text.host(value.name))
        for field in fields(value):
            former = getattr(value, field.name)
            new = self._change(former, "" if isinstance(former, str) else field.name)
            if new is not former and new != former:
                changed[field.name] = new
        return replace(value, **changed) if changed else value

    def _change_list(self, value: Any, key: str) -> Any:
        if key in ("environment", "start_environment"):
            return type(value)(self._change_variable(pair) for pair in value)
        found = []
        is_secret = False
        for item in value:
            text = isinstance(item, str)
            found.append(self._text.secret(item) if text and is_secret else self._change(item, "" if text else key))
            is_secret = key == "command" and text and item.startswith("-") and _is_secret_option(item)
        return type(value)(found)

    def _change_variable(self, pair: Any) -> Any:
        if not isinstance(pair, tuple | list) or [type(item) for item in pair] != [str, str]:
            return self._change(pair, "")
        name, value = pair
        return type(pair)((name, self._text.secret(value) if SECRET_NAME.search(name) else self._text.replace(value)))


def redact(trace: SavedTrace) -> SavedTrace:
    """Return the trace, redacted; a note in it says so."""
    return Redactor().redact_trace(trace)


def _is_secret_option(word: str) -> bool:
    return "=" not in word and SECRET_NAME.search(word) is not None
