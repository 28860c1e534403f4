"""Everything around the captioner: inputs, reading, decoding, captioning on two runners, committed output, training."""
