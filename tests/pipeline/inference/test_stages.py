import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import encoded, jpeg, picture
from stage_rows import SEARCH, caption_stage, decode_stage, encoded_rows
from tolerances import same_log_prob

from configs.search import Search
from model.captioner import Caption, Captioner, Ensemble, checkpoint
from model.decoding.reranking import PixelsByKey, Reranker
from model.vision.preprocessing import Preprocessing
from pipeline.images.decoding import load
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.pixel_columns import as_pixels
from pipeline.schema import CAPTIONED


def test_decoding_replaces_images_by_pixels() -> None:
    preprocessing = Preprocessing(image_size=7, resize="shorter_side", resize_size=9)
    found = DecodeStage([preprocessing])(encoded_rows(jpeg(0), None, b"", encoded(picture(3, 20, 50), "PNG")))
    assert "image" not in found.column_names
    assert found["error_code"].to_pylist() == [None, "unreadable", "empty_file", None]
    assert found["width"].to_pylist() == [33, None, None, 20]
    assert found["height"].to_pylist() == [47, None, None, 50]
    pixels = found["pixels"].to_pylist()
    assert pixels[1] is None and pixels[2] is None
    for i, image in ((0, jpeg(0)), (3, encoded(picture(3, 20, 50), "PNG"))):
        expected = preprocessing.pixels(load(image, draft=preprocessing.draft)[0])
        assert np.array_equal(np.frombuffer(pixels[i], np.uint8).reshape(7, 7, 3), expected)


def test_each_way_of_looking_has_its_pixels_side_by_side() -> None:
    one = Preprocessing(image_size=7, resize="shorter_side", resize_size=9)
    two = Preprocessing(image_size=5, resize_size=6, mean=(0.1, 0.2, 0.3))
    like_two = Preprocessing(image_size=5, resize_size=6, std=[0.5, 0.5, 0.5])
    data = encoded(picture(1, 90, 70))
    found = DecodeStage([one, two, like_two])(encoded_rows(data, b"x"))
    assert found["pixels"].type == pa.binary(7 * 7 * 3 + 5 * 5 * 3)
    assert found["error_code"].to_pylist() == [None, "not_an_image"]
    seen = np.frombuffer(found["pixels"][0].as_py(), np.uint8)
    expected = [view.pixels(load(data, draft=view.draft)[0]).ravel() for view in (one, two)]
    assert np.array_equal(seen, np.concatenate(expected))


def through_ipc(table: pa.Table) -> pa.Table:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(stream.getvalue()).read_all()


@pytest.mark.parametrize("start", [0, 1, 3])
def test_pixels_survive_slicing_joining_and_travelling(start: int) -> None:
    decode = DecodeStage([Preprocessing(image_size=5, resize_size=5)])  # 75 bytes: no multiple of Arrow's padding
    images = [jpeg(i) for i in range(5)]
    whole = decode(encoded_rows(*images))
    parts = pa.concat_tables([decode(encoded_rows(*images[:2])), decode(encoded_rows(*images[2:]))])
    expected = np.stack([np.frombuffer(data, np.uint8).reshape(5, 5, 3) for data in whole["pixels"].to_pylist()])
    for table in (whole, parts, through_ipc(whole), through_ipc(parts), through_ipc(whole.slice(start))):
        left = table.slice(start) if len(table) == 5 else table
        assert np.array_equal(as_pixels(left["pixels"]).reshape(-1, 5, 5, 3), expected[start:])


def test_captioning_gives_the_captioners_captions(captioner: Path) -> None:
    decode = decode_stage(captioner)
    images = [jpeg(0), b"not an image", jpeg(2), None, jpeg(4)]
    found = caption_stage(captioner)(decode(encoded_rows(*images)))
    assert found.schema == CAPTIONED
    assert found["error_code"].to_pylist() == [None, "not_an_image", None, "unreadable", None]
    oracle = Captioner.load(captioner, device="cpu")
    for row, image in zip(found.to_pylist(), images, strict=True):
        if row["error_code"]:
            assert (row["caption"], row["log_prob"], row["num_tokens"], row["candidates"]) == (None,) * 4
            continue
        (expected,) = oracle.caption([load(image, draft=oracle.preprocessing.draft)[0]], SEARCH)
        assert row["caption"] == expected.text
        assert row["num_tokens"] == expected.candidates[0].num_tokens
        assert row["log_prob"] == same_log_prob(expected.candidates[0].log_prob, row["num_tokens"])
        assert [candidate["caption"] for candidate in row["candidates"]] == [c.text for c in expected.candidates]


def test_tokens_are_counted_of_the_best_candidate(captioner: Path) -> None:
    rows = decode_stage(captioner)(encoded_rows(*map(jpeg, range(5))))
    search = Search(beam_size=5, num_candidates=3, max_tokens=12)
    found = caption_stage(captioner, search=search)(rows).to_pylist()
    words = [[len(candidate["caption"].split()) for candidate in row["candidates"]] for row in found]
    assert [row["num_tokens"] for row in found] == [best + 1 for best, *_ in words]
    assert any(best != second for best, second, _ in words)


def test_the_probability_of_each_token_comes_on_request(captioner: Path) -> None:
    search = replace(SEARCH, token_probs=True)
    rows = decode_stage(captioner)(encoded_rows(b"not an image", *map(jpeg, range(4))))
    found = caption_stage(captioner, search=search)(rows)
    assert found.schema.names == [*CAPTIONED.names, "token_probs"]
    oracle = Captioner.load(captioner, device="cpu")
    images = [load(jpeg(i), draft=oracle.preprocessing.draft)[0] for i in range(4)]
    expected = [np.exp(caption.candidates[0].token_log_probs) for caption in oracle.caption(images, search)]
    failed, *probabilities = found["token_probs"].to_pylist()
    assert failed is None
    for probability, its_oracle in zip(probabilities, expected, strict=True):
        assert probability == pytest.approx(its_oracle, rel=1e-3)


def test_each_captioner_of_an_ensemble_is_given_its_own_pixels(captioner: Path, second_captioner: Path) -> None:
    both = [captioner, second_captioner]
    rows = decode_stage(*both)(encoded_rows(*map(jpeg, range(3))))
    found = caption_stage(*both)(rows)
    draft = checkpoint.load_preprocessing(captioner).draft
    images = [load(jpeg(i), draft=draft)[0] for i in range(3)]
    expected = Ensemble.load(both, device="cpu").caption(images, SEARCH)
    assert found["caption"].to_pylist() == [caption.text for caption in expected]


@pytest.mark.parametrize("count", [1, 4])
def test_rows_share_the_time_that_their_stage_took(
    count: int, captioner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, caption = decode_stage(captioner), caption_stage(captioner)
    clock = SimpleNamespace(perf_counter=iter([10.0, 13.0, 20.0, 25.0]).__next__)
    for stage in ("decode_stage", "caption_stage"):
        monkeypatch.setattr(f"pipeline.inference.{stage}.time", clock)
    rows = caption(decode(encoded_rows(*map(jpeg, range(count)))))
    assert rows["decode_s"].to_pylist() == [3 / count] * count
    assert rows["caption_s"].to_pylist() == [5 / count] * count


@pytest.mark.parametrize("images", [[], [None], [b"", b"x", None]])
def test_a_batch_without_a_good_image_passes(images: list[bytes | None], captioner: Path) -> None:
    decode = decode_stage(captioner)
    found = caption_stage(captioner)(decode(encoded_rows(*images)))
    assert found.schema == CAPTIONED
    assert found["image_id"].to_pylist() == [f"{i}.jpg" for i in range(len(images))]
    assert found["caption"].null_count == len(images)


@pytest.mark.parametrize("too_much", [set(), {0}, {2, 3}, set(range(5))])
def test_what_the_device_cannot_hold_is_halved(
    too_much: set[int], captioner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = decode_stage(captioner)(encoded_rows(*map(jpeg, range(5))))
    caption = caption_stage(captioner)
    whole, expected = Captioner.caption_pixels, caption(rows).to_pylist()
    heavy = {rows["pixels"][i].as_py() for i in too_much}

    def limited(self: Captioner, views: PixelsByKey, search: Search, scorer: Reranker | None) -> list[Caption]:
        (pixels,) = views.values()
        if len(pixels) > 2 or any(image.tobytes() in heavy for image in pixels):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, views, search, scorer)

    monkeypatch.setattr(Captioner, "caption_pixels", limited)
    found = caption(rows)
    assert found.schema == CAPTIONED
    for i, row in enumerate(found.to_pylist()):
        if i in too_much:
            assert (row["error_code"], row["caption"]) == ("out_of_memory", None)
        else:
            assert (row["error_code"], row["caption"]) == (None, expected[i]["caption"])


def test_decoding_travels_to_workers() -> None:
    decode = pickle.loads(pickle.dumps(DecodeStage([Preprocessing(image_size=6, resize_size=8)])))
    assert decode(encoded_rows(jpeg(1)))["pixels"].type == pa.binary(6 * 6 * 3)
