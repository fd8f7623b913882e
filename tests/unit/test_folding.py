"""The differences that a search ignores."""

import pytest

from models import folded

EQUAL_WORDS = [
    ["istanbul", "ISTANBUL", "İstanbul", "İSTANBUL", "ıstanbul", "I\N{COMBINING DOT ABOVE}stanbul"],
    ["kapı", "KAPI", "kapi"],
    ["Straße", "STRASSE", "STRAẞE", "strasse"],
    ["ὈΔΥΣΣΕΎΣ", "Ὀδυσσεύς", "ὀδυσσεύσ"],
    ["Café", "CAFÉ", "cafe\N{COMBINING ACUTE ACCENT}"],
    ["ﬁn", "FIN", "fin"],
    # Lithuanian writes the dot of an i under an accent.
    ["ì", "Ì", "i\N{COMBINING DOT ABOVE}\N{COMBINING GRAVE ACCENT}"],
    ["į́", "Į́", "į\N{COMBINING DOT ABOVE}\N{COMBINING ACUTE ACCENT}"],
    ["j́", "J́", "j\N{COMBINING DOT ABOVE}\N{COMBINING ACUTE ACCENT}"],
    ["ᾳ", "ᾼ", "ΑΙ", "αι"],
]


@pytest.mark.parametrize("words", EQUAL_WORDS, ids=lambda words: str(words[0]))
def test_words_that_differ_only_in_case_are_equal(words: list[str]) -> None:
    assert {folded(word) for word in words} == {folded(words[0])}


@pytest.mark.parametrize(("one", "other"), [("e", "é"), ("z", "ż"), ("o", "ö"), ("は", "ば")])
def test_accents_are_significant(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize("word", [word for words in EQUAL_WORDS for word in words])
def test_folding_is_idempotent(word: str) -> None:
    assert folded(folded(word)) == folded(word)
