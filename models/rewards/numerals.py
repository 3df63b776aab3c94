"""Numbers of things that a prompt asks for: "two dogs and a red car" are 2 dog and 1 red car."""

import re
from collections.abc import Iterator

NUMBERS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
}
ARTICLES = {"a", "an"}
LIST_STARTS = {"and", "with", "plus", ","}
"""What an article may follow, where it counts one thing: not "in a park"."""
STOPS = re.compile(
    r"and|or|with|plus|of|on|in|at|to|by|for|from|into|onto|over|under|above|below|near|beside|behind|between|inside"
    r"|outside|around|against|next|while|that|which|who|is|are|was|were|the|this|these|its|their|there|an?|\W"
)
"""What ends a name."""
PICTURES = re.compile(
    r"photo(graph)?|picture|image|painting|drawing|illustration|sketch|render(ing)?|portrait|close-?up|view|scene"
    r"|group|pair|set|row|bunch"
)
"""What is not a thing in the picture, but the picture or a number of others: "a photo of two dogs"."""
PLURALS = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "scarves": "scarf",
    "potatoes": "potato",
    "tomatoes": "tomato",
    "heroes": "hero",
    "cookies": "cookie",
    "movies": "movie",
    "buses": "bus",
}
LONGEST = 4
"""Words of a name."""


def counts_in(prompt: str) -> dict[str, int]:
    """The things that a prompt counts, in the singular, with their numbers; English.

    Digits and number words up to twenty count wherever they stand; "a" and "an" where the prompt begins or in
    a list. A thing that comes twice is added up.
    """
    words = re.findall(r"[a-z0-9][a-z0-9'-]*|[,.;:!?()]", prompt.lower())
    found: dict[str, int] = {}
    for at, number in numbers_in(words):
        name = name_at(words[at + 1 :], plural=number != 1)
        if name:
            found[name] = found.get(name, 0) + number
    return found


def numbers_in(words: list[str]) -> Iterator[tuple[int, int]]:
    """Where numbers stand, and which."""
    for at, word in enumerate(words):
        if word in NUMBERS:
            yield at, NUMBERS[word]
        elif word.isdecimal() and len(word) <= 2:
            yield at, int(word)
        elif word in ARTICLES and (at == 0 or words[at - 1] in LIST_STARTS):
            yield at, 1


def name_at(words: list[str], *, plural: bool) -> str:
    """The name that follows a number, in the singular; empty where there is none.

    Several things end with the first word in the plural: "three dogs running" are dogs.
    """
    name: list[str] = []
    for word in words[:LONGEST]:
        if STOPS.fullmatch(word) or word in NUMBERS or word.isdecimal():
            break
        single = singular(word)
        name.append(single if plural else word)
        if plural and (single != word or word in PLURALS):
            break
    return "" if not name or PICTURES.fullmatch(name[-1]) else " ".join(name)


def singular(word: str) -> str:
    """A noun in the singular; itself where it seems to be no plural."""
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        return word[:-1]
    return word
