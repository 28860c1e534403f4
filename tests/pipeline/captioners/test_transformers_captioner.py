"""Hugging Face models as captioners: tiny ones of five kinds, loaded as those of users are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, assert_same, picture, pictures, rows_of

from cluster.connect import Resources
from pipeline.errors import CaptionerError

pytest.importorskip("transformers")

from hugging_face_models import MODELS, save_model
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, ViTImageProcessor

from pipeline.captioners.transformers_captioner import TransformersCaptioner

PROMPTS = {"blip": "a red", "florence2": "<CAPTION>", "git": "a red", "llava": "say a", "vision_encoder_decoder": ""}
GENERATE = {"max_new_tokens": 6}
IMAGES = [picture(i) for i in range(6)]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_model(kind, tmp_path_factory.mktemp("models") / kind) for kind in MODELS}


def loaded(folder: Path, **options: Any) -> TransformersCaptioner:
    captioner = TransformersCaptioner(str(folder), **({"generate": GENERATE} | options))
    captioner.load("cpu")
    return captioner


def expected_inputs(kind: str, folder: Path, number: int) -> Any:
    """What the model's own documentation gives to `generate`, for one image and the prompt of its kind."""
    image, prompt = IMAGES[number], PROMPTS[kind]
    if kind == "vision_encoder_decoder":
        return ViTImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
    processor = AutoProcessor.from_pretrained(folder)
    if kind == "git":
        ids = processor(text=prompt, add_special_tokens=False).input_ids
        ids = torch.tensor([[processor.tokenizer.cls_token_id, *ids]])
        return {"pixel_values": processor(images=image, return_tensors="pt").pixel_values, "input_ids": ids}
    text = "USER: <image> say a" if kind == "llava" else prompt
    options = {"add_special_tokens": False} if kind == "llava" else {}
    return processor(images=image, text=text, return_tensors="pt", **options)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_captions_and_log_probabilities_are_the_models_own(kind: str, models: dict[str, Path]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(models[kind]).eval()
    tokens = AutoTokenizer.from_pretrained(models[kind])
    captions = loaded(models[kind], prompt=PROMPTS[kind]).caption(IMAGES)
    assert len({round(caption.candidates[0].log_prob or 0.0, 2) for caption in captions}) > 3  # the image matters
    for number, caption in enumerate(captions):
        inputs = expected_inputs(kind, models[kind], number)
        found = model.generate(**inputs, **GENERATE, do_sample=False, output_scores=True, return_dict_in_generate=True)
        chosen = found.sequences[0, -len(found.scores) :]
        log_prob = sum(float(step[0].log_softmax(0)[i]) for step, i in zip(found.scores, chosen, strict=True))
        (candidate,) = caption.candidates
        assert candidate.text == tokens.decode(chosen, skip_special_tokens=True).strip()
        assert candidate.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert candidate.num_tokens == len(chosen)


@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("generate", [GENERATE, GENERATE | {"num_beams": 3, "num_return_sequences": 2}])
def test_captions_do_not_depend_on_their_neighbours(
    kind: str, generate: dict[str, Any], models: dict[str, Path]
) -> None:
    captioner = loaded(models[kind], prompt=PROMPTS[kind], generate=generate)
    together = captioner.caption(IMAGES)
    pairs = [caption for i in range(0, 6, 2) for caption in captioner.caption([IMAGES[i + 1], IMAGES[i]])[::-1]]
    for caption, other in zip(together, pairs, strict=True):
        assert [each.text for each in caption.candidates] == [each.text for each in other.candidates]
        for one, two in zip(caption.candidates, other.candidates, strict=True):
            assert (one.log_prob, one.num_tokens) == (pytest.approx(two.log_prob, abs=1e-4), two.num_tokens)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_candidates_of_beam_search_have_the_scores_of_their_beams(kind: str, models: dict[str, Path]) -> None:
    beams = GENERATE | {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.0}
    model = AutoModelForImageTextToText.from_pretrained(models[kind]).eval()
    captions = loaded(models[kind], prompt=PROMPTS[kind], generate=beams).caption(IMAGES[:2])
    for number, caption in enumerate(captions):
        inputs = expected_inputs(kind, models[kind], number)
        found = model.generate(**inputs, **beams, output_scores=True, return_dict_in_generate=True)
        scores = [candidate.log_prob for candidate in caption.candidates]
        assert scores == pytest.approx(found.sequences_scores.tolist(), abs=1e-4)


def test_both_runners_give_the_same_rows(
    models: dict[str, Path], shardtalk: Run, tmp_path: Path, local_ray: Resources
) -> None:
    photos = pictures(tmp_path / "in", 5)
    options = json.dumps({"prompt": "a red", "generate": GENERATE, "batch_size": 2})
    usual = ("--captioner", f"hf:{models['blip']}", "--captioner_args", options)
    for runner in ("local", "ray"):
        code, said = shardtalk("caption", photos, "--output", tmp_path / runner, "--runner", runner, *usual)
        assert code == 0, said
    rows = rows_of(tmp_path / "ray")
    assert_same(rows, rows_of(tmp_path / "local"))
    assert len({row["caption"] for row in rows}) > 1 and all(row["log_prob"] < 0 for row in rows)
    code, said = shardtalk("caption", photos, "--output", tmp_path / "local", *usual[:2], "--runner", "local")
    assert code == 2 and "captioner.prompt was 'a red' and is ''" in said


def test_its_identity_is_its_files(tmp_path: Path) -> None:
    folder = save_model("blip", tmp_path / "blip")
    before = TransformersCaptioner(str(folder)).identity
    assert TransformersCaptioner(str(folder), prompt="a").identity == before
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert TransformersCaptioner(str(folder)).identity != before


def test_weights_that_are_pickled_are_not_read(models: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(models["blip"])
    for file in models["blip"].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        TransformersCaptioner(str(tmp_path)).load("cpu")


def test_what_cannot_be_used_is_refused(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionerError, match="do_sample makes captions depend on the batch"):
        TransformersCaptioner(str(models["git"]), generate={"do_sample": True})
    with pytest.raises(CaptionerError, match="takes no prompt"):
        loaded(models["vision_encoder_decoder"], prompt="say")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CaptionerError, match="there is no directory no/such-model"):
        TransformersCaptioner("no/such-model")
