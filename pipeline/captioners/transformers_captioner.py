"""Hugging Face's image-to-text models behind the protocol of captioners: `--captioner hf:NAME_OR_DIRECTORY`.

BLIP, GIT, Florence-2, vision-encoder-decoders, and models that are asked by a chat template. Letters: B images, N
sequences, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from model.device import choose_device, choose_dtype
from pipeline.captioners.protocol import Candidate, Caption, ImageCaptioner, RgbImages
from pipeline.errors import CaptionerError

_SAMPLING_OFF = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


class TransformersCaptioner(ImageCaptioner):
    """A model of `AutoModelForImageTextToText`. Made by `--captioner hf:…`; the arguments come from `--captioner_args`.

    Args:
        name: a directory that `save_pretrained` wrote, or a name on the Hugging Face Hub.
        prompt: text that goes with each image: the question of a chat model, the task of Florence-2 ("<CAPTION>"), the
            beginning of a caption for BLIP and GIT, which is not repeated in it.
        dtype: "auto", or the name of a torch dtype. "auto" is float32 on the CPU, elsewhere that of the checkpoint.
        generate: options of `generate`, such as `{num_beams: 3, max_new_tokens: 30, num_return_sequences: 3}`.
        batch_size: images per call.
        max_side: as for `RgbImages`.
        revision: version on the Hub.
        trust_remote_code: run code that comes with the model.

    Raises CaptionerError for a model that is not there, and for `do_sample`: captions must not depend on their batch.
    """

    def __init__(
        self,
        name: str,
        *,
        prompt: str = "",
        dtype: str = "auto",
        generate: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        max_side: int = 1024,
        revision: str = "main",
        trust_remote_code: bool = False,
    ) -> None:
        self._is_local = Path(name).is_dir()
        self._location = str(Path(name).absolute()) if self._is_local else name
        self._prompt, self._dtype, self._generate = prompt, dtype, dict(generate or {})
        self._source = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.inputs, self.batch_size = RgbImages(max_side), batch_size
        if self._generate.get("do_sample"):
            raise CaptionerError("do_sample makes captions depend on the batch they are in; use num_beams")
        if not self._is_local:  # all processes load the version that is found here
            self._source["revision"] = self._commit(name, revision)

    @property
    def name(self) -> str:
        """The last part of the directory or name."""
        return Path(self._location).name

    @cached_property
    def identity(self) -> str:
        """The hash of all files of a directory, or name and commit on the Hub."""
        if not self._is_local:
            return f"{self._location}@{self._source['revision']}"
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(self._location).iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return f"sha256 {digest.hexdigest()}"

    def settings(self) -> dict[str, Any]:
        """As `ImageCaptioner.settings`, with the options."""
        options = {"prompt": self._prompt, "dtype": self._dtype, "generate": self._generate}
        described = {"name": self.name, "identity": self.identity, "inputs": str(self.inputs)}
        return {"captioner": described | options}

    def load(self, device: str) -> None:
        """As `ImageCaptioner.load`. Reads safetensors only, which hold no code."""
        from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        chosen = choose_device(device)
        dtype = choose_dtype("float32" if self._dtype == "auto" else self._dtype, chosen)
        own = chosen.type != "cpu" and self._dtype == "auto"
        loaded = AutoModelForImageTextToText.from_pretrained(
            self._location, dtype="auto" if own else dtype, use_safetensors=True, **self._source
        )
        self._model = loaded.eval().requires_grad_(False).to(chosen)
        processor = AutoProcessor.from_pretrained(self._location, **self._source)
        if isinstance(processor, ProcessorMixin):
            self._processor, self._tokenizer = processor, processor.tokenizer
        else:  # a model whose two parts have no processor in common
            self._processor, self._tokenizer = None, self._auto("AutoTokenizer")
            self._images = self._auto("AutoImageProcessor")
            if self._prompt:
                raise CaptionerError(f"{self.name} takes no prompt")
        self._tokenizer.padding_side = "left"  # what is generated follows the prompt
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._end_ids = _ids(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        """As `ImageCaptioner.caption`."""
        inputs = self._inputs(images).to(self._model.device, dtype=self._model.dtype)
        with torch.inference_mode():
            found = self._model.generate(
                **inputs, **{**_SAMPLING_OFF, **self._generate}, output_scores=True, return_dict_in_generate=True
            )
            beams = getattr(found, "beam_indices", None)
            # Beam search has summed normalised scores; greedy search has the model's.
            scores = self._model.compute_transition_scores(
                found.sequences, found.scores, beams, normalize_logits=beams is None
            )
        tokens = found.sequences[:, found.sequences.shape[1] - scores.shape[1] :]
        candidates = list(map(self._candidate, tokens.tolist(), scores.tolist()))
        each = len(candidates) // len(images)
        return [Caption(candidates[i * each : (i + 1) * each]) for i in range(len(images))]

    def close(self) -> None:
        """As `ImageCaptioner.close`."""
        del self._model

    def _inputs(self, images: Sequence[Image.Image]) -> Any:
        if self._processor is None:
            return self._images(list(images), return_tensors="pt")
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": self._prompt}]
            asked = [{"role": "user", "content": content if self._prompt else content[:1]}]
            prompt = self._processor.apply_chat_template(asked, add_generation_prompt=True)
        else:
            prompt = self._prompt
        if not prompt:
            return self._processor(images=list(images), return_tensors="pt")
        options = {"add_special_tokens": False} if prompt is not self._prompt else {}
        texts = [prompt] * len(images)
        inputs = self._processor(images=list(images), text=texts, padding=True, return_tensors="pt", **options)
        if self._model.config.model_type == "git":  # it goes on after the prompt, and the tokenizer has ended that
            inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
        return inputs

    def _candidate(self, tokens: list[int], scores: list[float]) -> Candidate:
        """Makes a candidate of the generated tokens (L), END and padding included, and their log-probabilities (L)."""
        length = next((i + 1 for i, token in enumerate(tokens) if token in self._end_ids), len(tokens))
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True).strip()
        return Candidate(text, sum(scores[:length]), length)

    def _auto(self, class_name: str) -> Any:
        import transformers

        return getattr(transformers, class_name).from_pretrained(self._location, **self._source)

    @staticmethod
    def _commit(name: str, revision: str) -> str:
        """Returns the commit of a model on the Hub. Raises CaptionerError if there is none."""
        from transformers.utils import cached_file

        try:
            return Path(cached_file(name, "config.json", revision=revision)).parent.name
        except OSError as error:
            reason = " ".join(str(error).split())
            raise CaptionerError(f"there is no directory {name}, and no model of that name: {reason}") from error


def _ids(*given: int | Iterable[int] | None) -> set[int]:
    return {one for ids in given if ids is not None for one in ([ids] if isinstance(ids, int) else ids)}
