import pytest

from vizsynth.models import find_class, imagenet_labels

LABELS = imagenet_labels()


def test_there_are_a_thousand_names() -> None:
    assert len(LABELS) == 1000
    assert LABELS[0] == "tench" and LABELS[999] == "toilet paper"


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("tabby", 281),
        ("  Tabby   CAT ", 281),
        ("tiger cat", 282),
        ("Egyptian cat", 285),
        ("espresso", 967),  # exact, though "espresso machine" has it too
        ("espresso machine", 550),
        ("jack-o'-lantern", 607),  # WordNet's name for "carved pumpkin"
        ("rooster", 7),
        ("281", 281),
        ("0", 0),
        ("egyptian", 285),
        ("tripo", 872),  # no word, but in one name only
    ],
)
def test_a_name_is_found(typed: str, label: int) -> None:
    assert find_class(LABELS, typed) == label


def test_every_name_that_is_unique_finds_its_class() -> None:
    unique = [i for i, label in enumerate(LABELS) if LABELS.count(label) == 1]
    assert len(unique) > 990
    folded = [label.casefold() for label in LABELS]
    assert all(find_class(LABELS, LABELS[i]) == i for i in unique if folded.count(folded[i]) == 1)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("crane", r"crane bird \(134\), construction crane \(517\)"),
        ("egyptan cat", r"nearest are: Egyptian cat \(285\)"),
        ("1000", r"label 1000 is outside the 1000 classes 0\.\.999"),
        ("zzzzqqqq", r"no class is called 'zzzzqqqq'$"),
        (" ", "must not be empty"),
        ("er", "may be any of .* and [0-9]+ more"),
    ],
)
def test_other_names_are_answered(typed: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_class(LABELS, typed)


def test_words_come_before_parts_of_words() -> None:
    assert find_class(("caterpillar", "cat's eye", "scatter"), "cat") == 1


def test_a_network_without_names_takes_numbers_only() -> None:
    assert find_class(None, "3") == 3
    with pytest.raises(ValueError, match="no class names"):
        find_class(None, "cat")


def test_ones_own_names_have_no_synonyms_of_imagenet() -> None:
    with pytest.raises(ValueError, match="no class is called"):
        find_class(("dog", "house"), "cock")
