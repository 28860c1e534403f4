"""A decoder that is not trained any more: the same words and, up to rounding, log-probabilities, in fewer operations.

Letters: N captions being decoded, V vocabulary (END included), E embedding, H hidden, L layers.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState, StepDecoder
from model.nn.frozen_cnn import is_frozen_faster


def frozen_decoder(decoder: Decoder, *, dtype: torch.dtype) -> StepDecoder:
    """Returns a decoder that does the same, faster on a CPU in float32; elsewhere it is `decoder` itself.

    Args:
        decoder: in evaluation mode; later changes of its weights have no effect.
        dtype: precision in which it will decode.
    """
    return FrozenDecoder(decoder) if is_frozen_faster(decoder.output.weight, dtype) else decoder


class FrozenDecoder:
    """A `StepDecoder` made of a `Decoder`, for decoding on a CPU in float32.

    A step of `Decoder` calls PyTorch's LSTM, which lays out its weights anew each time. Here a step is the matrix
    products that it needs and no others: what a word adds to the gates of the first layer is looked up in a table.

    Args:
        decoder: in evaluation mode, its weights in float32 on the CPU.
    """

    def __init__(self, decoder: Decoder) -> None:
        lstm, size = decoder.lstm, decoder.lstm.hidden_size
        self.max_tokens, self.num_state_tensors = decoder.max_tokens, decoder.num_state_tensors
        self.vocabulary_size = decoder.vocabulary_size
        self._hidden_size, self._attention = size, decoder.attention
        self._output_weight, self._output_bias = decoder.output.weight.detach().t(), decoder.output.bias.detach()
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
        self._gates_of_word = torch.addmm(bias, decoder.embedding.weight.detach(), input_weight)  # (V, 4 H)

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """As `StepDecoder.step`: word ids (N,) and state to log-probabilities (N, V) and a new state."""
        hidden, cell = (part.unbind() for part in state.recurrent)
        outputs, cells = list[torch.Tensor](), list[torch.Tensor]()
        for layer, (input_weight, hidden_weight, bias) in enumerate(self._layers):
            gates = self._gates_of_word[words] if layer == 0 else torch.addmm(bias, outputs[-1], input_weight)
            output, new_cell = self._cell(gates.addmm_(hidden[layer], hidden_weight), cell[layer])
            outputs.append(output)
            cells.append(new_cell)
        last = outputs[-1]
        if self._attention:
            last = self._attention.forward_packed(last, state.image_index, *state.memory)
        log_probs = torch.addmm(self._output_bias, last, self._output_weight).log_softmax(dim=-1)
        return log_probs, replace(state, recurrent=(torch.stack(outputs), torch.stack(cells)))

    def _cell(self, gates: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the new hidden and cell state (N, H) each, from gates (N, 4 H), which are overwritten."""
        size = self._hidden_size
        add, keep, show = gates[:, : 3 * size].sigmoid_().chunk(3, dim=1)
        new_cell = (keep * cell).addcmul_(add, gates[:, 3 * size :].tanh_())
        return show * new_cell.tanh(), new_cell
