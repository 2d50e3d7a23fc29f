"""The word that was probably meant."""

import pytest

from model_handlers.nearest import nearest


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("lite-sene", ["lite-frame", "lite-scene"], "did you mean 'lite-scene'? Known: lite-frame, lite-scene"),
        ("zzz", ("b", "a"), "did you mean 'b'? Known: b, a"),
        ("", {"a": 1}, "did you mean 'a'? Known: a"),
        (7, iter(["6", "7"]), "did you mean '7'? Known: 6, 7"),
    ],
    ids=["a slip", "nothing is near", "nothing at all", "no word"],
)
def test_some_word_is_always_nearest_and_all_are_told_in_their_order(name, known, told):
    assert nearest(name, known) == told
