import pytest

from models.rewards.numerals import counts_in


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("three airplanes and six camels", {"airplane": 3, "camel": 6}),
        (
            "two phones, one bicycle, four dogs and six clocks",
            {"phone": 2, "bicycle": 1, "dog": 4, "clock": 6},
        ),
        ("A photo of 12 red apples.", {"red apple": 12}),
        ("two dogs and a cat in a park", {"dog": 2, "cat": 1}),
        ("an owl and two knives", {"owl": 1, "knife": 2}),
        ("three dogs running on the beach", {"dog": 3}),
        ("five glass bottles", {"glass bottle": 5}),
        ("two people with a dog", {"person": 2, "dog": 1}),
        ("two sheep", {"sheep": 2}),
        ("two cats on two boxes", {"cat": 2, "box": 2}),
        ("one cat, two cats", {"cat": 3}),
        ("zero dogs and a cherry", {"dog": 0, "cherry": 1}),
        ("four strawberries next to three buses", {"strawberry": 4, "bus": 3}),
        ("a couple on a sunny day in a forest", {"couple": 1}),
        ("a group of three children", {"child": 3}),
    ],
)
def test_what_a_prompt_counts(prompt: str, counts: dict[str, int]) -> None:
    assert counts_in(prompt) == counts


@pytest.mark.parametrize(
    "prompt",
    ["", " ", "good morning", "a photo of the sea", "in 1999", "two", "two and three", "猫 🐈", "2 2 2"],
)
def test_what_counts_nothing(prompt: str) -> None:
    assert counts_in(prompt) == {}
