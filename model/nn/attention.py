"""Attention from the LSTM's output to the regions of an image, the cells of the CNN's final feature map.

Letters: B images, P regions per image, Q queries per image (the words of its captions), N queries in all, E embedding,
H hidden.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from model.errors import OptionError
from model.nn.decoder_state import DecoderState


class Attention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017), applied to the LSTM's output rather than to its input.

    The LSTM output queries the regions; the attended context is concatenated with it and projected (Luong et al., 2015;
    Lu et al., 2017). The context is not fed back into the LSTM, so training attends for all words at once.

    Args:
        embedding_size: E, size of a region's vector and of the attended context.
        hidden_size: H, size of the LSTM's output and of this module's output.
        heads: number of attention heads; must divide E and H.

    Raises OptionError if `heads` does not divide both.
    """

    def __init__(self, embedding_size: int, hidden_size: int, heads: int) -> None:
        super().__init__()
        if embedding_size % heads or hidden_size % heads:
            sizes = f"embedding_size, {embedding_size}, and hidden_size, {hidden_size}"
            raise OptionError(f"attention_heads is {heads}; it must be a divisor of {sizes}")
        self.heads = heads
        self.keys, self.queries = nn.Linear(embedding_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.joined = nn.Linear(hidden_size + embedding_size, hidden_size)

    def project_memory(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps regions (B, P, E) to keys (heads, B, P, H / heads) and values (heads, B, P, E / heads)."""
        return self._split_heads(self.keys(regions)), self._split_heads(regions)

    def forward(self, hidden: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Maps LSTM outputs (B, Q, H), with keys and values from `project_memory`, to outputs (B, Q, H)."""
        queries = self._split_heads(self.queries(hidden))
        context = scaled_dot_product_attention(queries, keys, values)  # (heads, B, Q, E / heads)
        joined = torch.cat([hidden, context.permute(1, 2, 0, 3).flatten(2)], dim=2)
        return torch.tanh(self.joined(joined))

    def forward_packed(self, hidden: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Maps LSTM outputs (N, H), one for each caption of a decoder's state, to outputs (N, H).

        Keys and values, the state's memory, are not copied for each query: they are many times its size.
        """
        keys, values = state.memory
        if state.captions_per_image:
            outputs: torch.Tensor = self(hidden.view(-1, state.captions_per_image, hidden.shape[1]), keys, values)
            return outputs.flatten(0, 1)
        image_index = state.image_index
        first = torch.searchsorted(image_index, image_index)
        position = torch.arange(len(image_index), device=image_index.device) - first  # among the image's queries
        padded = hidden.new_zeros(keys.shape[1], int(position.max()) + 1, hidden.shape[1])
        padded[image_index, position] = hidden
        outputs = self(padded, keys, values)
        return outputs[image_index, position]

    def _split_heads(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.view(*vectors.shape[:2], self.heads, -1).permute(2, 0, 1, 3)
