"""The captioner in pure PyTorch: vocabulary, preprocessing, encoder, decoder, search, loss, training step, checkpoint."""
