"""The image-to-text pipeline of transformers, which ends with version 4, on a network of its own with random weights.

A ViT of 192 × 10 and a GPT-2 of 256 × 2 that writes ten tokens, about as many as our captions have: 7.8 million
parameters and 1.7 GFLOP an image, where our captioner has 9.0 and 1.6. Its captions have no meaning. Nothing is
downloaded.

`python -m benchmarks.rivals.transformers_pipeline FOLDER CAPTIONER OUTPUT eager`
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    ImageToTextPipeline,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from benchmarks.rivals.clock import tick
from benchmarks.rivals.networks import BATCH_IMAGES, SEARCH
from model.captioner import checkpoint

TOKENS = 10
GENERATE = {"num_beams": SEARCH.beam_size, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
END = "END"


def make_pipeline(words: list[str], image_size: int) -> ImageToTextPipeline:
    """Makes network, tokenizer and image processor."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({word: i for i, word in enumerate([END, *words])}, unk_token=END)),
        eos_token=END,
        pad_token=END,
    )
    vision = ViTConfig(
        image_size=image_size,
        patch_size=32,
        hidden_size=192,
        num_hidden_layers=10,
        num_attention_heads=3,
        intermediate_size=768,
    )
    language = GPT2Config(vocab_size=len(words) + 1, n_embd=256, n_layer=2, n_head=4, n_positions=64)
    language.update({"bos_token_id": 0, "eos_token_id": 0})
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, language)
    config.decoder_start_token_id = config.pad_token_id = 0
    torch.manual_seed(0)
    network = VisionEncoderDecoderModel(config).eval()
    size = {"height": image_size, "width": image_size}
    return ImageToTextPipeline(network, tokenizer=tokenizer, image_processor=ViTImageProcessor(size=size))


def main(folder: str, captioner: str, output: str, _: str) -> None:
    """Captions the folder's JPEGs."""
    size = checkpoint.load_preprocessing(Path(captioner)).image_size
    pipeline = make_pipeline(list(checkpoint.load_vocabulary(Path(captioner)).words), size)
    paths = sorted(map(str, Path(folder).glob("*.jpg")))
    captions = []
    for first in range(0, len(paths), BATCH_IMAGES):
        batch = paths[first : first + BATCH_IMAGES]
        found = pipeline(batch, batch_size=BATCH_IMAGES, generate_kwargs=GENERATE)
        captions += [each[0]["generated_text"] for each in found]
        tick(len(batch))
    pq.write_table(pa.table({"path": paths, "caption": captions}), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
