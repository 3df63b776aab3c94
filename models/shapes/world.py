"""Scenes of flat shapes on a light background, and the captions that describe them.

A scene lives on a 3 x 3 grid of cells: every object has a cell of its own and wanders in it, so objects never
overlap. A caption names one to three groups ("two red circles and a blue square") or a relation between two
single objects ("a red circle above a blue square").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 64
GRID = 3
CELLS = GRID * GRID
CELL_SIZE = IMAGE_SIZE / GRID
RADIUS_RANGE = (6.5, 8.5)
JITTER = 2.0
MAX_OBJECTS = 7

SHAPES = ("circle", "square", "triangle")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.16, 0.16),
    "green": (0.13, 0.62, 0.26),
    "blue": (0.15, 0.33, 0.86),
    "yellow": (0.97, 0.82, 0.13),
    "purple": (0.56, 0.22, 0.72),
    "orange": (0.97, 0.52, 0.08),
}
COLOUR_NAMES = tuple(COLOURS)
CLASSES = len(COLOURS) * len(SHAPES)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Relation(StrEnum):
    """Where the first object lies, seen from the second."""

    ABOVE = "above"
    BELOW = "below"
    LEFT = "to the left of"
    RIGHT = "to the right of"


@dataclass(frozen=True)
class Group:
    """`count` objects of one colour and one shape."""

    count: int
    colour: str
    shape: str

    @property
    def kind(self) -> int:
        """Class index in [0, CLASSES): colour-major."""
        return COLOUR_NAMES.index(self.colour) * len(SHAPES) + SHAPES.index(self.shape)

    def __str__(self) -> str:
        if self.count == 1:
            article = "an" if self.colour[0] in "aeiou" else "a"
            return f"{article} {self.colour} {self.shape}"
        return f"{NUMBERS[self.count]} {self.colour} {self.shape}s"


@dataclass(frozen=True)
class Description:
    """What a caption asks for: groups in the order named, or two single objects and their relation."""

    groups: tuple[Group, ...]
    relation: Relation | None = None

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(group.count for group in self.groups)

    @property
    def kinds(self) -> list[int]:
        """The class of every object, group by group."""
        return [group.kind for group in self.groups for _ in range(group.count)]

    def counts(self) -> NDArray[np.int64]:
        """Objects wanted of each class: [CLASSES]."""
        return np.bincount(self.kinds, minlength=CLASSES)

    def __str__(self) -> str:
        if self.relation is not None:
            return f"{self.groups[0]} {self.relation} {self.groups[1]}"
        *head, last = [str(group) for group in self.groups]
        return f"{', '.join(head)} and {last}" if head else last


@dataclass(frozen=True)
class Thing:
    """One object: class index, centre and radius in pixels."""

    kind: int
    x: float
    y: float
    radius: float

    @property
    def colour(self) -> str:
        """Colour name."""
        return COLOUR_NAMES[self.kind // len(SHAPES)]

    @property
    def shape(self) -> str:
        """Shape name."""
        return SHAPES[self.kind % len(SHAPES)]


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. `cells` holds the grid cell of each thing, row-major."""

    things: tuple[Thing, ...]
    cells: tuple[int, ...]
    background: float


_SINGULAR = {"a": 1, "an": 1, **{word: value for value, word in enumerate(NUMBERS) if value}}
_SHAPE_WORDS = {*SHAPES, *(f"{shape}s" for shape in SHAPES)}
_COUNT_WORDS = {*NUMBERS, "ten", "eleven", "twelve", "dozen"}
_MEANT = f"(?:{'|'.join([*COLOURS, *_SHAPE_WORDS, *_COUNT_WORDS, 'and', 'an', 'a'])})"
_GROUP = re.compile(
    rf"(?:\b(?P<count>{'|'.join(_SINGULAR)}|[1-9])\s+(?:(?!{_MEANT}\b)[a-z]+,?\s+){{0,2}})?"
    rf"\b(?P<colour>{'|'.join(COLOURS)})\s+(?P<shape>{'|'.join(SHAPES)})s?\b"
)
_RELATION = re.compile("|".join(relation.value for relation in Relation))


def parse(caption: str) -> Description:
    """Read the groups and the relation out of a caption; words without a meaning here are passed over.

    Raises ValueError when the text names no coloured shape, or a colour, shape or count that is left over: a
    search for half of a caption would find the wrong picture and call it right.
    """
    text = caption.lower()
    matches = list(_GROUP.finditer(text))
    if not matches:
        raise ValueError(
            f"no coloured shape found in {caption!r}: say for example 'two red circles and a blue square' "
            f"(colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)})"
        )
    left = [word for word in re.findall(r"[a-z]+|\d+", _GROUP.sub(" ", text)) if _means(word)]
    if left:
        raise ValueError(
            f"cannot read {', '.join(map(repr, dict.fromkeys(left)))} in {caption!r}: every group is a count "
            f"from 1 to 9, a colour ({', '.join(COLOURS)}) and a shape ({', '.join(SHAPES)})"
        )
    groups = tuple(Group(_count(m["count"]), m["colour"], m["shape"]) for m in matches)
    between = text[matches[0].end() : matches[1].start()] if len(matches) == 2 else ""
    relation = _RELATION.search(between)
    return Description(groups, Relation(relation.group()) if relation else None)


def _means(word: str) -> bool:
    return word.isdigit() or word in COLOURS or word in _SHAPE_WORDS or word in _COUNT_WORDS


def _count(word: str | None) -> int:
    if word is None:
        return 1
    return int(word) if word.isdigit() else _SINGULAR[word]


def holds(relation: Relation, first: tuple[float, float], second: tuple[float, float], margin: float) -> bool:
    """Whether the first centre (x, y) stands in the relation to the second by at least `margin` pixels.

    The offset along the relation's axis must also exceed the offset across it.
    """
    dx, dy = second[0] - first[0], second[1] - first[1]
    along, across = {
        Relation.ABOVE: (dy, dx),
        Relation.BELOW: (-dy, dx),
        Relation.LEFT: (dx, dy),
        Relation.RIGHT: (-dx, dy),
    }[relation]
    return along >= margin and along > abs(across)


def relation_pairs(relation: Relation) -> list[tuple[int, int]]:
    """All ordered pairs of cells whose centres stand in the relation."""
    centres = [(float(cell % GRID), float(cell // GRID)) for cell in range(CELLS)]
    return [
        (i, j)
        for i in range(CELLS)
        for j in range(CELLS)
        if i != j and holds(relation, centres[i], centres[j], margin=0.5)
    ]


PAIRS = {relation: relation_pairs(relation) for relation in Relation}


def place(description: Description, rng: np.random.Generator) -> Scene:
    """Draw a scene that the description is true of; cells, offsets and sizes are uniform."""
    if description.relation is not None:
        cells = list(PAIRS[description.relation][rng.integers(len(PAIRS[description.relation]))])
    else:
        cells = [int(cell) for cell in rng.permutation(CELLS)[: description.total]]
    things = tuple(_thing(kind, cell, rng) for kind, cell in zip(description.kinds, cells, strict=True))
    return Scene(things, tuple(cells), background=float(rng.uniform(0.92, 0.97)))


def _thing(kind: int, cell: int, rng: np.random.Generator) -> Thing:
    dx, dy = rng.uniform(-JITTER, JITTER, size=2)
    x = (cell % GRID + 0.5) * CELL_SIZE + dx
    y = (cell // GRID + 0.5) * CELL_SIZE + dy
    return Thing(kind, float(x), float(y), float(rng.uniform(*RADIUS_RANGE)))


def render(scene: Scene) -> NDArray[np.float32]:
    """Draw a scene, anti-aliased from signed distances: [3, 64, 64] in [0, 1]."""
    image = np.full((3, IMAGE_SIZE, IMAGE_SIZE), scene.background, dtype=np.float32)
    for thing in scene.things:
        reach = int(thing.radius + 3)
        x0, x1 = max(0, int(thing.x) - reach), min(IMAGE_SIZE, int(thing.x) + reach + 1)
        y0, y1 = max(0, int(thing.y) - reach), min(IMAGE_SIZE, int(thing.y) + reach + 1)
        dx = np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5 - thing.x
        dy = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - thing.y
        cover = np.clip(0.5 - signed_distance(thing.shape, dx, dy, thing.radius), 0, 1)
        colour = np.array(COLOURS[thing.colour], dtype=np.float32)[:, None, None]
        patch = image[:, y0:y1, x0:x1]
        patch += cover * (colour - patch)
    return image


def signed_distance(
    shape: str, dx: NDArray[np.float32], dy: NDArray[np.float32], radius: float
) -> NDArray[np.floating]:
    """Distance in pixels to the outline, negative inside. Areas are alike across shapes for one radius."""
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * radius
    # An upward triangle: three half-planes; the base lies 0.75 radius below the centre.
    slanted = (np.abs(dx) * 2.0 - dy) / 5.0**0.5
    return np.maximum(slanted - 0.52 * radius, dy - 0.85 * radius)


def _triangle() -> tuple[float, float, float]:
    """Area of the unit triangle, and its bounding box's centre and its centroid below its origin."""
    axis = np.linspace(-2, 2, 2001, dtype=np.float32)
    inside = signed_distance("triangle", axis[None, :], axis[:, None], 1.0) < 0
    rows = axis[inside.any(1)]
    area = float(inside.sum() * (axis[1] - axis[0]) ** 2)
    return area, float((rows[0] + rows[-1]) / 2), float((inside.sum(1) * axis).sum() / inside.sum())


TRIANGLE_AREA, TRIANGLE_BOX_DROP, TRIANGLE_DROP = _triangle()
UNIT_AREA = {"circle": float(np.pi), "square": (2 * 0.88) ** 2, "triangle": TRIANGLE_AREA}


class Split(StrEnum):
    """Kinds of caption."""

    ONE = "one"
    TWO = "two"
    RELATION = "relation"
    THREE = "three"


TRAINING_MIX = {Split.ONE: 0.25, Split.TWO: 0.35, Split.RELATION: 0.15, Split.THREE: 0.25}


def describe(split: Split, rng: np.random.Generator, *, hard: bool = False) -> Description:
    """Draw a description of the given kind with distinct classes; `hard` asks for larger counts."""
    size = {Split.ONE: 1, Split.TWO: 2, Split.RELATION: 2, Split.THREE: 3}[split]
    kinds = rng.choice(CLASSES, size=size, replace=False)
    if split is Split.RELATION:
        relation = list(Relation)[rng.integers(len(Relation))]
        return Description(tuple(_group(1, int(kind)) for kind in kinds), relation)
    counts = _counts(size, rng, hard=hard)
    return Description(tuple(_group(count, int(kind)) for count, kind in zip(counts, kinds, strict=True)))


def _counts(size: int, rng: np.random.Generator, *, hard: bool) -> list[int]:
    low, high = {1: (3, 5), 2: (2, 4), 3: (1, 3)}[size] if hard else {1: (1, 6), 2: (1, 4), 3: (1, 3)}[size]
    while True:
        counts = [int(count) for count in rng.integers(low, high + 1, size=size)]
        if sum(counts) <= MAX_OBJECTS and (not hard or sum(counts) >= size + 2 or size == 1):
            return counts


def _group(count: int, kind: int) -> Group:
    return Group(count, COLOUR_NAMES[kind // len(SHAPES)], SHAPES[kind % len(SHAPES)])


def training_description(rng: np.random.Generator) -> Description:
    """Draw a description from the training mix."""
    splits = list(TRAINING_MIX)
    return describe(splits[rng.choice(len(splits), p=list(TRAINING_MIX.values()))], rng)


def hard_prompts(count: int, seed: int = 20250319) -> list[str]:
    """The hard set: counts of 3 to 5, two and three groups with more objects, relations, in equal shares.

    The same seed gives the same prompts, and a longer list starts with the shorter one.
    """
    rng = np.random.default_rng(seed)
    splits = (Split.ONE, Split.TWO, Split.THREE, Split.RELATION)
    return [str(describe(splits[i % len(splits)], rng, hard=True)) for i in range(count)]
