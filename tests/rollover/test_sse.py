"""Reading server-sent events, against what the specification asks."""

from rollover import Event
from rollover.sse import EventParser


def read(text: str) -> list[Event]:
    parser = EventParser()
    return [event for line in text.split("\n") if (event := parser.feed(line))]


def test_one_event() -> None:
    assert read('id: 3\nevent: level\ndata: {"seq": 3, "type": "level"}\n\n') == [
        Event(3, "level", {"seq": 3, "type": "level"})
    ]


def test_comments_keep_the_line_open_and_are_no_events() -> None:
    assert read(": waiting\n\n: waiting\n\nid:1\nevent:queued\ndata:{}\n\n") == [Event(1, "queued", {})]


def test_data_may_take_several_lines_and_other_fields_are_ignored() -> None:
    assert read('retry: 5\nid: 1\nevent: x\ndata: {"a":\ndata: 1}\nnovelty\n\n') == [Event(1, "x", {"a": 1})]


def test_an_event_that_was_cut_short_is_none() -> None:
    assert read('id: 1\nevent: queued\ndata: {"half": ') == []


def test_id_and_type_are_also_in_the_data() -> None:
    assert read('data: {"seq": 9, "type": "failed"}\n\n') == [
        Event(9, "failed", {"seq": 9, "type": "failed"})
    ]
