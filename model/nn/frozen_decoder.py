"""A decoder that is not trained any more: the same words and, up to rounding, log-probabilities, in fewer operations.

Letters: N captions being decoded, V vocabulary (END included), E embedding, H hidden, L layers.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState, StepDecoder


def frozen_decoder(decoder: Decoder, *, dtype: torch.dtype) -> StepDecoder:
    """Returns a decoder that does the same, faster; one with weights that are not in float32 is returned as it is.

    Args:
        decoder: in evaluation mode; later changes of its weights have no effect.
        dtype: precision of its matrix products: float32, bfloat16 or float16.
    """
    return FrozenDecoder(decoder, dtype) if decoder.output.weight.dtype == torch.float32 else decoder


class FrozenDecoder:
    """A `StepDecoder` made of a `Decoder`, for decoding.

    A step of `Decoder` calls PyTorch's LSTM, which lays out its weights anew each time and, in 16 bits, converts them.
    Here a step is the matrix products that it needs and no others: what a word adds to the gates of the first layer is
    looked up in a table. All its shapes follow from those of its arguments, as a CUDA graph needs.

    Args:
        decoder: in evaluation mode, its weights in float32.
        dtype: precision of its matrix products.
    """

    def __init__(self, decoder: Decoder, dtype: torch.dtype) -> None:
        lstm, size = decoder.lstm, decoder.lstm.hidden_size
        self.max_tokens, self.num_state_tensors = decoder.max_tokens, decoder.num_state_tensors
        self.vocabulary_size = decoder.vocabulary_size
        self._hidden_size, self._dtype = size, dtype
        self._attention = decoder.attention and deepcopy(decoder.attention).to(dtype)
        self._output_weight = decoder.output.weight.detach().to(dtype).t()
        self._output_bias = decoder.output.bias.detach().to(dtype)
        gates = torch.arange(4 * size).view(4, size)[[0, 1, 3, 2]].flatten()  # input, forget, output; then the cell's
        self._layers = [
            (
                getattr(lstm, f"weight_ih_l{layer}").detach()[gates].t(),
                getattr(lstm, f"weight_hh_l{layer}").detach()[gates].t(),
                (getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")).detach()[gates],
            )
            for layer in range(lstm.num_layers)
        ]
        input_weight, _, bias = self._layers[0]
        self._gates_of_word = torch.addmm(bias, decoder.embedding.weight.detach(), input_weight).to(dtype)  # (V, 4 H)
        self._layers = [
            (input_weight.to(dtype), hidden_weight.to(dtype), bias.to(dtype))
            for input_weight, hidden_weight, bias in self._layers
        ]

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """As `StepDecoder.step`: word ids (N,) and state to log-probabilities (N, V) and a new state."""
        hidden, cell = (part.unbind() for part in state.recurrent)
        outputs, cells = list[torch.Tensor](), list[torch.Tensor]()
        for layer, (input_weight, hidden_weight, bias) in enumerate(self._layers):
            gates = self._gates_of_word[words] if layer == 0 else torch.addmm(bias, outputs[-1], input_weight)
            gates.addmm_(hidden[layer].to(self._dtype), hidden_weight)
            output, new_cell = self._cell(gates.float(), cell[layer])
            outputs.append(output)
            cells.append(new_cell)
        last = outputs[-1]
        if self._attention:
            last = self._attention.forward_packed(last, state)
        log_probs = torch.addmm(self._output_bias, last, self._output_weight).log_softmax(dim=-1, dtype=torch.float32)
        return log_probs, replace(state, recurrent=(torch.stack(outputs), torch.stack(cells)))

    def _cell(self, gates: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the new hidden and cell state (N, H), from gates (N, 4 H) in float32, which are overwritten."""
        size = self._hidden_size
        add, keep, show = gates[:, : 3 * size].sigmoid_().chunk(3, dim=1)
        new_cell = (keep * cell).addcmul_(add, gates[:, 3 * size :].tanh_())
        return (show * new_cell.tanh()).to(self._dtype), new_cell.to(cell.dtype)
