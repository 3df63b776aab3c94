import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.shapes.judge import accepts, read_objects
from models.shapes.world import (
    CELLS,
    CLASSES,
    MAX_OBJECTS,
    Description,
    Group,
    Relation,
    Split,
    Thing,
    describe,
    hard_prompts,
    parse,
    place,
    render,
    training_description,
)

CAPTIONS = st.tuples(st.sampled_from(Split), st.booleans(), st.integers(0, 2**31))


@given(CAPTIONS)
def test_a_caption_is_read_back_as_it_was_meant(drawn: tuple[Split, bool, int]) -> None:
    split, hard, seed = drawn
    description = describe(split, np.random.default_rng(seed), hard=hard)
    assert parse(str(description)) == description
    assert description.total <= MAX_OBJECTS


@given(CAPTIONS)
def test_objects_have_cells_of_their_own_and_never_touch(drawn: tuple[Split, bool, int]) -> None:
    split, hard, seed = drawn
    rng = np.random.default_rng(seed)
    scene = place(describe(split, rng, hard=hard), rng)
    assert len(set(scene.cells)) == len(scene.cells) <= CELLS
    for i, one in enumerate(scene.things):
        for other in scene.things[:i]:
            assert max(abs(one.x - other.x), abs(one.y - other.y)) > one.radius + other.radius - 1


def test_the_judge_accepts_rendered_truth() -> None:
    rng = np.random.default_rng(3)
    verdicts = []
    for _ in range(400):
        description = training_description(rng)
        verdicts.append(accepts(render(place(description, rng)), description))
    assert np.mean(verdicts) >= 0.99


def test_the_judge_refuses_pictures_with_one_thing_wrong() -> None:
    rng = np.random.default_rng(4)
    accepted = 0
    for _ in range(400):
        asked, shown = _hard_negative(rng)
        accepted += accepts(render(place(shown, rng)), asked)
    assert accepted == 0


def _hard_negative(rng: np.random.Generator) -> tuple[Description, Description]:
    """A description, and one that differs from it in one count, colour, shape or relation."""
    asked = training_description(rng)
    if asked.relation is not None:
        others = [relation for relation in Relation if relation is not asked.relation]
        return asked, Description(asked.groups, others[rng.integers(len(others))])
    first, *rest = asked.groups
    changed = [
        Group(first.count + 1 if asked.total < MAX_OBJECTS else first.count - 1, first.colour, first.shape),
        Group(first.count, "red" if first.colour != "red" else "blue", first.shape),
        Group(first.count, first.colour, "circle" if first.shape != "circle" else "square"),
    ]
    wrong = Description((changed[rng.integers(len(changed))], *rest))
    return (asked, wrong) if not np.array_equal(asked.counts(), wrong.counts()) else _hard_negative(rng)


def test_the_judge_calls_a_blob_no_shape() -> None:
    rng = np.random.default_rng(5)
    image = render(place(parse("a red circle"), rng))
    image[:, 20:26, 2:62] = np.array([0.88, 0.16, 0.16], dtype=np.float32)[:, None, None]
    assert None in [thing.kind for thing in read_objects(image)]
    assert not accepts(image, parse("a red circle"))


def test_the_hard_set_is_fixed_and_a_longer_one_starts_with_the_shorter() -> None:
    assert hard_prompts(40)[:12] == hard_prompts(12)
    assert hard_prompts(3) == [
        "five yellow triangles",
        "three purple circles and four red circles",
        "two green circles, a blue circle and three purple squares",
    ]


@pytest.mark.parametrize(
    ("caption", "meant"),
    [
        ("A photo of 3 Red circles, please", Description((Group(3, "red", "circle"),))),
        ("Two big, shiny red circles", Description((Group(2, "red", "circle"),))),
        ("an orange square", Description((Group(1, "orange", "square"),))),
        (
            "a red circle to the left of a blue square",
            Description((Group(1, "red", "circle"), Group(1, "blue", "square")), Relation.LEFT),
        ),
    ],
)
def test_free_wording_is_read(caption: str, meant: Description) -> None:
    assert parse(caption) == meant


def test_a_caption_without_shapes_says_what_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"two red circles.*colours: red.*shapes: circle"):
        parse("a castle by the sea")


@pytest.mark.parametrize(
    ("caption", "unread"),
    [
        ("12 red circles", "'12'"),
        ("ten red circles", "'ten'"),
        ("a red and a blue circle", "'red'"),
        ("two crimson circles and a blue square", "'two', 'circles'"),
    ],
)
def test_a_caption_read_by_half_is_refused_with_what_is_left(caption: str, unread: str) -> None:
    with pytest.raises(ValueError, match=f"cannot read {unread} in .* a count from 1 to 9"):
        parse(caption)


def test_a_thing_knows_its_colour_and_shape() -> None:
    things = [Thing(kind, 0, 0, 1) for kind in range(CLASSES)]
    assert len({(thing.colour, thing.shape) for thing in things}) == CLASSES
    assert [Group(1, thing.colour, thing.shape).kind for thing in things] == list(range(CLASSES))
