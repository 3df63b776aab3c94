"""Server-sent events, as far as a Rollover stream uses them (WHATWG HTML, section 9.2.6)."""

import json
from dataclasses import dataclass, field

from rollover.documents import Event


@dataclass
class EventParser:
    """Collects lines until a blank one ends an event. One parser for each connection."""

    _fields: dict[str, str] = field(default_factory=dict[str, str])

    def feed(self, line: str) -> Event | None:
        """Take one line without its line end; an event where this line ended one."""
        if line:
            self._collect(line)
            return None
        fields, self._fields = self._fields, {}
        return _event(fields) if "data" in fields else None

    def _collect(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in self._fields:
            value = f"{self._fields['data']}\n{value}"
        if name:  # a line that starts with a colon is a comment, sent to keep the connection open
            self._fields[name] = value


def _event(fields: dict[str, str]) -> Event:
    data = json.loads(fields["data"])
    return Event(
        seq=int(fields.get("id") or data["seq"]), type=fields.get("event") or data["type"], data=data
    )
