"""Whole mangled C++ symbols: functions, variables, and what the compiler adds to them (vtables, thunks, guards)."""

from __future__ import annotations

from .grammar import Grammar
from .tables import SPECIAL, SPECIAL_NAME
from .text import Text, Unreadable, declare, single


class Symbols(Grammar):
    """The rules of the top; each raises `Unreadable` where the text does not follow it."""

    def whole(self) -> Text:
        text = self.encoding(outermost=True)
        if self.at != len(self.symbol):
            raise Unreadable
        return text

    def encoding(self, *, outermost: bool = False) -> Text:
        with self.deeper():
            if self.peek() in ("T", "G"):
                return self.special()
            saved = self.arguments
            name, qualifiers = self.name(own=True)
            text = single(name)
            if self.peek() not in ("", "E"):
                result = single(self.type()) if text.templated and not text.special else None
                parameters = self.parameters()
                # An enclosing function is named without its result.
                text = declare(result if outermost else None, text, parameters, qualifiers)
                self.count(text)
            elif qualifiers:
                raise Unreadable
            self.arguments = saved
            return text

    def special(self) -> Text:
        kind = self.peek(2)
        self.at += 2
        if kind in SPECIAL:
            return Text(SPECIAL[kind] + str(single(self.type())))
        if kind in SPECIAL_NAME:
            name = single(self.name(own=True)[0])
            return Text(SPECIAL_NAME[kind].format(name, self.sequence(36) if kind == "GR" else ""))
        if kind == "TC":
            derived = single(self.type())
            self.digits()
            self.expect("_")
            return Text(f"construction vtable for {single(self.type())}-in-{derived}")
        return Text(self.variant(kind) + str(self.encoding(outermost=True)))

    def variant(self, kind: str) -> str:
        """What another function that stands for the one that follows is called."""
        if kind in ("Th", "Tv"):
            self.at -= 1
            self.call_offset()
            return "non-virtual thunk to " if kind == "Th" else "virtual thunk to "
        if kind == "Tc":
            self.call_offset()
            self.call_offset()
            return "covariant return thunk to "
        if kind == "GT":
            self.expect("t")
            return "transaction clone for "
        raise Unreadable
