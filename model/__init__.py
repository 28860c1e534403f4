"""The captioner in pure PyTorch, from pixels to words: its parts, its training step, its checkpoints."""
