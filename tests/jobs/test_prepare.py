import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch7_files import FIXTURES

from configs.errors import ConfigError
from configs.prepare import PrepareConfig
from jobs.prepare import main, run
from model.vocabulary import Vocabulary
from pipeline.datasets.prepared_split import read_split
from pipeline.errors import InputError, OutputError
from pipeline.tar.samples import read_samples

CHECKOUT = Path(__file__).parents[2]
FLICKR8K = CHECKOUT.parent / "shared" / "data" / "flickr8k"


def entry(name: str, *captions: str, **more: Any) -> dict[str, Any]:
    return {"file_path": name, "captions": captions, **more}


def given(
    folder: Path, entries: list[dict[str, Any]], *, missing: tuple[str, ...] = (), **options: Any
) -> PrepareConfig:
    root = folder / "images"
    root.mkdir(exist_ok=True)
    for i, item in enumerate(entries):
        if item["file_path"] not in missing:
            Image.new("RGB", (30 + i, 20), (9 * i, 0, 0)).save(root / item["file_path"])
    (folder / "c.json").write_text(json.dumps(entries))
    options = {"word_count_threshold": 0, "num_decode_threads": 2, "output": str(folder / "out")} | options
    return PrepareConfig(captions=str(folder / "c.json"), images_root=str(root), **options)


def dogs(count: int) -> list[dict[str, Any]]:
    return [entry(f"{i}.jpg", "A dog.", f"A dog, number{i}!") for i in range(count)]


def records(config: PrepareConfig, split: str) -> dict[str, dict[str, Any]]:
    found = {}
    for shard in sorted(Path(config.output, split).glob("*.tar")):
        with shard.open("rb") as file:
            for sample in read_samples(file, size=shard.stat().st_size):
                found[sample.key] = json.loads(sample.files["json"] or b"")
    return found


def stats(config: PrepareConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(config.output, "stats.json").read_text(encoding="utf-8"))
    return found


def files(config: PrepareConfig) -> dict[str, bytes]:
    output = Path(config.output)
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_record_holds_text_words_and_ids_of_the_training_vocabulary(tmp_path: Path) -> None:
    config = given(
        tmp_path,
        [
            entry("a.jpg", "Dog dog dog café!", "A café", split="train", id=41),
            entry("b.png", "A wolf", split="val"),
        ],
        word_count_threshold=1,
    )
    assert run(config) == 0
    assert Vocabulary.load(tmp_path / "out/vocabulary.json").words == ("dog", "café", "UNK")
    assert records(config, "train") == {
        "a": {
            "image_id": 41,
            "file_path": "a.jpg",
            "captions": ["Dog dog dog café!", "A café"],
            "tokens": [["dog", "dog", "dog", "café"], ["a", "café"]],
            "ids": [[1, 1, 1, 2], [3, 2]],
        }
    }
    assert records(config, "val")["b"]["ids"] == [[3, 3]]


def test_training_reads_the_shards(tmp_path: Path) -> None:
    config = given(tmp_path, dogs(5), num_val=2, shard_images=2)
    run(config)
    train = read_split(Path(config.output), "train")
    assert len(train) == 3
    assert [train.ids(n) for n in range(3)] == [records(config, "train")[name]["ids"] for name in train.image_ids]
    assert len(read_split(Path(config.output), "val")) == 2


def test_a_vocabulary_without_rare_words_still_knows_the_unknown(tmp_path: Path) -> None:
    config = given(tmp_path, [entry("a.jpg", "dog", split="train"), entry("b.jpg", "cat", split="val")])
    run(config)
    assert records(config, "val")["b"]["ids"] == [[2]]


def test_long_captions_are_cut_in_ids_only_and_counted(tmp_path: Path) -> None:
    config = given(tmp_path, [entry("a.jpg", "a b c d e", "a b c")], max_tokens=3)
    run(config)
    record, train = records(config, "train")["a"], stats(config)["splits"]["train"]
    assert [len(ids) for ids in record["ids"]] == [3, 3]
    assert [len(tokens) for tokens in record["tokens"]] == [5, 3]
    assert (train["truncated_captions"], train["longest_caption"], train["lengths"]) == (1, 5, {"3": 1, "5": 1})


def test_stats_count_what_was_written(tmp_path: Path) -> None:
    config = given(
        tmp_path,
        [
            entry("a.jpg", "a dog a dog", "a cat", split="train"),
            entry("b.jpg", "dog", split="train"),
            entry("c.jpg", "a wolf", "dog", split="test"),
        ],
        word_count_threshold=1,
        shard_images=1,
    )
    run(config)
    found = stats(config)
    train, test = found["splits"]["train"], found["splits"]["test"]
    assert [train[name] for name in ("images", "captions", "tokens", "unknown_tokens", "shards")] == [2, 3, 7, 1, 2]
    assert [test[name] for name in ("images", "captions", "tokens", "unknown_tokens", "shards")] == [1, 2, 3, 1, 1]
    assert test["unknown_token_share"] == pytest.approx(1 / 3)
    assert (found["vocabulary_size"], found["distinct_words"], found["rare_words"]) == (4, 3, 1)


def test_bad_images_and_captions_are_reported_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        entry("good.jpg", "a dog", "…", "a cat"),
        entry("mute.jpg", "", "!?"),
        entry("gone.jpg", "a wolf"),
        entry("cut.jpg", "a wolf"),
    ]
    config = given(tmp_path, entries, missing=("gone.jpg",))
    cut = tmp_path / "images" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-8])
    assert run(config) == 0
    found = stats(config)
    assert {skip["file_path"]: skip["error_code"] for skip in found["skipped_images"]} == {
        "mute.jpg": "no_caption",
        "gone.jpg": "unreadable",
        "cut.jpg": "corrupt_image",
    }
    assert found["skipped_captions"] == [
        {"file_path": "good.jpg", "position": 1, "caption": "…", "reason": "no word"},
    ]
    assert records(config, "train")["good"]["captions"] == ["a dog", "a cat"]
    assert "wolf" not in Vocabulary.load(tmp_path / "out/vocabulary.json").words
    assert "skipped 3 images, 1 corrupt_image, 1 no_caption, 1 unreadable; 1 captions" in capsys.readouterr().out


def test_counts_are_of_usable_images(tmp_path: Path) -> None:
    config = given(tmp_path, dogs(9), missing=("1.jpg", "4.jpg", "8.jpg"), num_val=3, num_test=1)
    run(config)
    written = {split: len(records(config, split)) for split in ("train", "val", "test")}
    assert written == {"train": 2, "val": 3, "test": 1}


def test_same_input_and_seed_make_the_same_bytes(tmp_path: Path) -> None:
    first = given(tmp_path, dogs(7), num_val=2, image_size=15, output=str(tmp_path / "first"), num_decode_threads=1)
    again = given(tmp_path, dogs(7), num_val=2, image_size=15, output=str(tmp_path / "again"), num_decode_threads=3)
    run(first)
    run(again)
    ours, theirs = files(first), files(again)
    del ours["stats.json"], theirs["stats.json"]  # it holds the options, and with them the output's path
    assert len(ours) == 3
    assert ours == theirs


def test_an_output_with_files_is_refused_and_stays(tmp_path: Path) -> None:
    config = given(tmp_path, dogs(3))
    run(config)
    before = files(config)
    with pytest.raises(OutputError, match="--overwrite=true"):
        run(config)
    assert files(config) == before


def test_overwriting_leaves_no_shard_of_the_earlier_run(tmp_path: Path) -> None:
    run(given(tmp_path, dogs(5), num_test=2, shard_images=1))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    config = given(tmp_path, dogs(5)[:2], overwrite=True)
    run(config)
    assert set(files(config)) == {"train/train-000000.tar", "vocabulary.json", "stats.json", "notes.txt"}


def test_half_a_surrogate_pair_in_a_caption_survives(tmp_path: Path) -> None:
    config = given(tmp_path, [entry("a.jpg", "dog \ud83d", "\ud83d")])
    run(config)
    assert records(config, "train")["a"]["captions"] == ["dog \ud83d"]
    assert stats(config)["skipped_captions"][0]["caption"] == "\ud83d"


@pytest.mark.parametrize(
    ("entries", "options", "missing", "said"),
    [
        (dogs(3), {"images_root": "nowhere"}, (), "images_root nowhere is no folder"),
        (dogs(2), {}, ("0.jpg", "1.jpg"), "none of 2 images can be used, the first, '0.jpg': no such file"),
        ([entry("a.jpg", "?")], {}, (), "none of its 1 captions has a word"),
        (dogs(3), {"num_val": 2, "num_test": 1}, (), "leave none of 3 images"),
        (dogs(4), {"num_val": 3}, ("2.jpg",), "leave none of 3 images"),
        ([entry("a.jpg", "x", split="val")], {}, (), "none of 1 images is for training"),
        (dogs(2), {"word_count_threshold": 9}, (), "more than 9 times"),
    ],
)
def test_input_that_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path: Path, entries: list[dict[str, Any]], options: dict[str, Any], missing: tuple[str, ...], said: str
) -> None:
    config = given(tmp_path, entries, missing=missing)
    config = PrepareConfig(**vars(config) | options)
    with pytest.raises(InputError) as refusal:
        run(config)
    assert said in str(refusal.value)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("option", [{"num_val": -1}, {"max_tokens": 0}, {"shard_images": 0}, {"image_quality": 101}])
def test_options_out_of_range_are_refused_with_their_value(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as refusal:
        PrepareConfig(captions="c", images_root="i", output="o", **option)
    ((name, value),) = option.items()
    assert f"{name} is {value}" in str(refusal.value)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = given(tmp_path, dogs(4))
    argv = [config.captions, "--images-root", config.images_root, "--output", config.output]
    assert main([*argv, "--num-val", "1", "--word-count-threshold=0"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{config.output}/train: 3 images, 6 captions in 1 shards",
        f"{config.output}/val: 1 images, 2 captions in 1 shards",
        f"{config.output}/vocabulary.json: {Vocabulary.load(tmp_path / 'out/vocabulary.json').size - 1} words",
        f"{config.output}/stats.json: skipped 0 images; 0 captions",
    ]
    assert "reading" in said.err


def test_the_command_ends_with_one_line_and_code_2_on_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.json"), "--images-root", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "none.json does not exist" in error
    assert error.count("\n") == 1


def test_help_needs_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'pyarrow', 'PIL', 'pandas'}"
    code = f"import sys, jobs.prepare, configs.prepare; sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="Flickr8k is not beside the checkout")
def test_flickr8k_keeps_karpathys_splits_and_reports_images_that_are_not_there(tmp_path: Path) -> None:
    dataset = json.loads((FLICKR8K / "dataset_flickr8k.json").read_text())
    for split, count in (("train", 11), ("val", 4)):
        dataset["images"] += [item for item in dataset["images"] if item["split"] == split][:count]
    dataset["images"] = [*dataset["images"][-15:], dataset["images"][0] | {"filename": "not_here.jpg", "split": "test"}]
    (tmp_path / "c.json").write_text(json.dumps(dataset))
    config = PrepareConfig(
        captions=str(tmp_path / "c.json"), images_root=str(FLICKR8K / "images"), output=str(tmp_path / "out")
    )
    run(config)
    assert {split: len(records(config, split)) for split in ("train", "val", "test")} == {
        "train": 11,
        "val": 4,
        "test": 0,
    }
    assert [skip["file_path"] for skip in stats(config)["skipped_images"]] == ["not_here.jpg"]


PREPRO = FIXTURES / "prepro"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("thr1_len16", {"num_val": 3, "num_test": 2, "word_count_threshold": 1}),
        ("thr5_default", {"num_val": 4, "word_count_threshold": 5}),
    ],
)
def test_words_ids_and_splits_are_those_of_prepro_py(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    images = {"captions": str(PREPRO / "input.json"), "images_root": str(FIXTURES / "images")}
    config = PrepareConfig(**images, output=str(tmp_path / "out"), tokenizer="neuraltalk2", max_tokens=16, **options)
    assert run(config) == 0
    theirs = json.loads((PREPRO / f"{name}.json").read_text())
    labels = dict(np.load(PREPRO / f"{name}.npz"))
    vocabulary = Vocabulary.load(tmp_path / "out/vocabulary.json")
    assert set(vocabulary.words) == set(theirs["ix_to_word"].values())
    assert vocabulary.words[-1] == "UNK"
    for split in ("train", "val", "test"):
        ours = list(records(config, split).values())
        positions = [i for i, image in enumerate(theirs["images"]) if image["split"] == split]
        assert [record["file_path"] for record in ours] == [theirs["images"][i]["file_path"] for i in positions]
        for record, i in zip(ours, positions, strict=True):
            rows = range(labels["label_start_ix"][i] - 1, labels["label_end_ix"][i])
            assert [len(ids) for ids in record["ids"]] == [labels["label_length"][row] for row in rows]
            assert [[vocabulary.words[word - 1] for word in ids] for ids in record["ids"]] == [
                [theirs["ix_to_word"][str(word)] for word in labels["labels"][row] if word] for row in rows
            ]


def test_as_neuraltalk2_there_is_no_unknown_word_where_none_was_rare(tmp_path: Path) -> None:
    config = given(tmp_path, [entry("a.jpg", "a dog"), entry("b.jpg", "a cat's")], tokenizer="neuraltalk2", num_val=1)
    assert run(config) == 0
    assert sorted(Vocabulary.load(tmp_path / "out/vocabulary.json").words) == ["a", "cats", "dog"]


def test_as_neuraltalk2_splits_of_the_json_are_kept_where_none_are_drawn(tmp_path: Path) -> None:
    entries = [entry("a.jpg", "a dog", split="val"), entry("b.jpg", "a cat", split="train")]
    config = given(tmp_path, entries, tokenizer="neuraltalk2")
    assert run(config) == 0
    assert (list(records(config, "val")), list(records(config, "train"))) == (["a"], ["b"])


def test_as_neuraltalk2_some_images_must_be_left_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave none of 2 images"):
        run(given(tmp_path, dogs(2), tokenizer="neuraltalk2", num_val=2))
