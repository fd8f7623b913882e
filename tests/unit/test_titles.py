"""Which titles are visible, by Unicode's general categories."""

import sys
from unicodedata import category

import pytest
from pydantic import TypeAdapter, ValidationError

from models import Description, Title

TITLE: TypeAdapter[str] = TypeAdapter(Title)
DESCRIPTION: TypeAdapter[str] = TypeAdapter(Description)


@pytest.mark.parametrize(
    "title",
    [
        "\u200b",
        "\u200c\u200d",
        "\u2060\ufeff",
        "\u00ad",
        "\u061c\u200e\u200f",
        "\u202a\u202b\u202c\u202d\u202e",
        "\u2066\u2067\u2068\u2069",
        "\u180e",
        "\u2061\u2064",
        "\ufe0f",
        "\U000e0100",
        "\U000e0020\U000e007f",
        "\u0301",
        "\u20dd",
        "\u0903",
        "\u034f",
        "\u17b4\u17b5",
        "\u115f",
        "\u1160",
        "\u3164",
        "\uffa0",
        "\u2800\u2800",
        "\ufffc",
        "\U0001d159",
        "\U00013441",
        "\u0378",
        "\uffff",
        "\U0010ffff",
        "\u3164 \u200b \u2800",
    ],
)
def test_a_title_without_a_visible_character_is_refused(title: str) -> None:
    with pytest.raises(ValidationError, match="that can be seen"):
        TITLE.validate_python(title)


def test_control_characters_are_refused_except_a_few_in_descriptions() -> None:
    in_no_title: set[str] = set()
    in_no_description: set[str] = set()
    for character in map(chr, range(0x3000)):
        for adapter, refused in [(TITLE, in_no_title), (DESCRIPTION, in_no_description)]:
            try:
                adapter.validate_python(f"a{character}b")
            except ValidationError:
                refused.add(character)

    breaks = {character for character in in_no_title if category(character) in {"Zl", "Zp"}}
    assert in_no_title - breaks == in_no_description | set("\t\n\v\f\r\x85")
    assert breaks == {"\u2028", "\u2029"}
    assert {category(character) for character in in_no_title - breaks} == {"Cc"}
    assert len(in_no_title - breaks) == 65


def test_letters_numbers_punctuation_and_symbols_are_titles() -> None:
    refused = set()
    for character in map(chr, range(sys.maxunicode + 1)):
        if category(character)[0] in "LNPS":
            try:
                TITLE.validate_python(character)
            except ValidationError:
                refused.add(character)

    assert refused <= set("\u115f\u1160\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U0001d159")
    assert len(refused) in {7, 9}  # the Egyptian blanks are in Unicode 15
