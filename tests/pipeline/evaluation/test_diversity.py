import pytest

from pipeline.evaluation.diversity import diversity, tokenized_captions


def test_counts_are_of_words_and_bigrams_of_all_captions() -> None:
    found = diversity(["A dog runs.", "a dog sits on a", "A dog, runs"])
    assert (found.captions, found.vocabulary) == (3, 5)
    assert found.div_1 == pytest.approx(5 / 11)
    assert found.div_2 == pytest.approx(5 / 8)  # a-dog, dog-runs, dog-sits, sits-on, on-a
    assert found.mean_words == pytest.approx(11 / 3)
    assert found.distinct_captions == pytest.approx(2 / 3)


@pytest.mark.parametrize(("caption", "broken"), [("a man with a", 1), ("a cup of", 1), ("a cup", 0), ("A cup of.", 1)])
def test_a_caption_that_was_cut_short_ends_broken(caption: str, broken: float) -> None:
    assert diversity([caption]).broken_endings == broken


@pytest.mark.parametrize(("caption", "repeated"), [("a dog and a dog", 1), ("a dog and a cat", 0), ("red red red", 1)])
def test_a_bigram_said_twice_is_found(caption: str, repeated: float) -> None:
    assert diversity([caption]).repeated_bigrams == repeated


def test_novel_is_what_nobody_wrote_so() -> None:
    known = tokenized_captions(["A dog runs!", "two cats"])
    assert diversity(["a dog runs", "a dog", "two  cats", "cats two"], known).novel == 0.5
    assert diversity(["a dog runs"]).novel is None


def test_captions_without_words_do_not_count() -> None:
    assert diversity(["a dog", "", "!"]) == diversity(["a dog"])
    nothing = diversity(["", "…"], tokenized_captions([]))
    assert (nothing.captions, nothing.div_1, nothing.mean_words, nothing.novel) == (0, 0, 0, 0)
