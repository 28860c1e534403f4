"""Looking at the places of an image while speaking about it.

Letters: B images, P places of each, Q words to be said about each, E embedding, H hidden.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from model.errors import OptionError


class Attention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) from the LSTM to the places, after it and not into it.

    Each word's output asks, sees a mean of the places, and is joined with it, as in Luong et al. (2015) and Lu et al.
    (2017). The LSTM does not hear what was seen, so in training all words look at once.

    Args:
        embedding_size: E, of a place, which is also what is seen of it.
        hidden_size: H, of the LSTM's output, and of what comes of it.
        heads: that look for different things; a divisor of E and H.

    Raises OptionError for a number of heads that is none.
    """

    def __init__(self, embedding_size: int, hidden_size: int, heads: int) -> None:
        super().__init__()
        if embedding_size % heads or hidden_size % heads:
            sizes = f"embedding_size, {embedding_size}, and hidden_size, {hidden_size}"
            raise OptionError(f"attention_heads is {heads}; it must be a divisor of {sizes}")
        self.heads = heads
        self.keys, self.queries = nn.Linear(embedding_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.joined = nn.Linear(hidden_size + embedding_size, hidden_size)

    def remember(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (B, P, E) → their keys (heads, B, P, H / heads), and themselves by head (heads, B, P, E / heads)."""
        return self._by_head(self.keys(places)), self._by_head(places)

    def forward(self, hidden: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The LSTM's output (B, Q, H), and what `remember` gave → what to say the words from (B, Q, H)."""
        queries = self._by_head(self.queries(hidden))
        seen = scaled_dot_product_attention(queries, keys, values)  # (heads, B, Q, E / heads)
        joined = torch.cat([hidden, seen.permute(1, 2, 0, 3).flatten(2)], dim=2)
        return torch.tanh(self.joined(joined))

    def of_images(
        self, hidden: torch.Tensor, image: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """The same for N words (N, H), some about each image, given (N,) in rising order → (N, H).

        What is remembered of an image is not copied for each of its captions, as it would be many times their size.
        """
        first = torch.searchsorted(image, image)
        place = torch.arange(len(image), device=image.device) - first  # among the words about the image
        together = hidden.new_zeros(keys.shape[1], int(place.max()) + 1, hidden.shape[1])
        together[image, place] = hidden
        joined: torch.Tensor = self(together, keys, values)
        return joined[image, place]

    def _by_head(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.view(*vectors.shape[:2], self.heads, -1).permute(2, 0, 1, 3)
