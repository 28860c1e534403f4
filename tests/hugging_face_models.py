"""Tiny Hugging Face models with random weights, one per kind, saved as their users find them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Florence2VisionConfig,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "<image>", "a", "red", "dog", "cat", "runs", "sits", "USER:", "say"]
SIDE, PATCH = 16, 8
VISION = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
}
TEXT = {"vocab_size": len(WORDS), "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE = {"height": SIDE, "width": SIDE}


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, which begins and ends texts as BERT's does."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", bos_token="[CLS]", cls_token="[CLS]", eos_token="[SEP]",
        sep_token="[SEP]", unk_token="[UNK]", extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Makes weights large, so that images that differ get captions that differ."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 if "embed" in name else 0.9)
    return model


def vision_encoder_decoder(folder: Path) -> None:
    """A ViT and a GPT-2, whose image processor and tokenizer have no processor in common."""
    language = GPT2Config(vocab_size=len(WORDS), n_embd=12, n_layer=1, n_head=2, n_positions=32, **IDS)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), language)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    spread(VisionEncoderDecoderModel(config)).save_pretrained(folder)
    ViTImageProcessor(size=SIZE).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def blip(folder: Path) -> None:
    """BLIP."""
    text = (
        TEXT
        | IDS
        | {"intermediate_size": 20, "encoder_hidden_size": 12, "sep_token_id": 2, "max_position_embeddings": 32}
    )
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=8, image_text_hidden_size=12)
    spread(BlipForConditionalGeneration(config)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=SIZE), tokenizer()).save_pretrained(folder)


def git(folder: Path) -> None:
    """GIT."""
    config = GitConfig(vision_config=VISION, intermediate_size=20, max_position_embeddings=64, **TEXT, **IDS)
    spread(GitForCausalLM(config)).save_pretrained(folder)
    images = CLIPImageProcessor(size=SIZE, crop_size=SIZE, do_center_crop=False)
    GitProcessor(images, tokenizer()).save_pretrained(folder)


def llava(folder: Path) -> None:
    """LLaVA, which is asked by a chat template."""
    text = LlamaConfig(intermediate_size=20, num_key_value_heads=2, max_position_embeddings=64, **TEXT, **IDS)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_index=4, vision_feature_layer=-1
    )
    spread(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    template = (
        "{% for message in messages %}USER: {% for part in message['content'] %}"
        "{{ '<image> ' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
    )
    images = CLIPImageProcessor(size=SIZE, crop_size=SIZE, do_center_crop=False)
    LlavaProcessor(
        images, tokenizer(), patch_size=PATCH, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


def florence2(folder: Path) -> None:
    """Florence-2, which is given a task."""
    vision = Florence2VisionConfig(
        depths=(1, 1), patch_size=(7, 3), patch_stride=(4, 2), patch_padding=(3, 1), patch_prenorm=(False, True),
        embed_dim=(8, 12), num_heads=(2, 2), num_groups=(2, 2), window_size=4, drop_path_rate=0.0, projection_dim=12,
        max_temporal_embeddings=4, max_position_embeddings=8,
    )  # fmt: skip
    text = BartConfig(
        vocab_size=len(WORDS), d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20, max_position_embeddings=64,
        decoder_start_token_id=2, forced_eos_token_id=2, **IDS,
    )  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    model = spread(Florence2ForConditionalGeneration(config))
    model.generation_config.update(decoder_start_token_id=2, **IDS)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    images.image_seq_length = 17  # a token for each of 4 × 4 places, and one for all
    Florence2Processor(images, tokenizer()).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "vision_encoder_decoder": vision_encoder_decoder,
    "blip": blip,
    "florence2": florence2,
    "git": git,
    "llava": llava,
}


def save_model(kind: str, folder: Path) -> Path:
    """Saves a model of this kind; returns its folder."""
    torch.manual_seed(3)
    MODELS[kind](folder)
    return folder
