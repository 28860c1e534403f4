import re

from configs.caption import CaptionConfig
from configs.evaluate import EvaluateConfig
from configs.loading.options import options_of
from configs.loading.renamed import RENAMED, with_new_names
from configs.prepare import PrepareConfig
from configs.search import Search
from configs.train import TrainConfig


def test_every_new_name_is_an_option_and_no_old_one_is() -> None:
    configs = (CaptionConfig, EvaluateConfig, PrepareConfig, TrainConfig)
    options = [option for config in configs for option in options_of(config, {})]
    names = {re.sub(r"^stages\.\w+", "stages.NAME", option.name) for option in options}
    assert set(RENAMED.values()) <= names
    assert not set(RENAMED) & names


def test_a_search_that_was_stored_is_read_by_the_names_now() -> None:
    then = {
        **{"method": "beam", "beam_size": 4, "no_repeat_ngram": 3, "groups": 2, "diversity": 0.2},
        **{"length_normalization": 0.9, "beam_search": "standard"},
    }
    found = with_new_names({"search": then, "dtype": "auto", "captioner": {"name": "x"}})
    assert Search(**found.pop("search")) == Search(
        beam_size=4, no_repeat_ngram_size=3, num_beam_groups=2, diversity_penalty=0.2, length_penalty=0.9
    )
    assert found == {"dtype": "auto", "captioner": {"name": "x"}}


def test_neuraltalk2s_search_is_a_method_now() -> None:
    then = {"method": "greedy", "beam_size": 5, "beam_search": "neuraltalk2"}
    assert with_new_names({"search": then}) == {"search": {"method": "neuraltalk2", "beam_size": 1}}


def test_a_run_that_was_stored_is_read_by_the_names_now() -> None:
    stage = {"name": "a.b", "batch_images": 3, "optimizer": {"momentum": 0.8}, "cnn": {"smoothing": 0.9}}
    assert with_new_names({"threads": 2, "best_by": "loss", "stages": [stage]}) == {
        "num_decode_threads": 2,
        "selection_metric": "loss",
        "stages": [{"name": "a.b", "batch_size": 3, "optimizer": {"beta1": 0.8}, "cnn": {"beta2": 0.9}}],
    }
