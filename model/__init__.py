"""Image captioning in pure PyTorch, from pixels to words: networks, decoding, training step, checkpoints."""
