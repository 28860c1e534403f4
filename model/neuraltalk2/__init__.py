"""Reads checkpoints of neuraltalk2: Torch7 files, their CNN and LSTM."""
