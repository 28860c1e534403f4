"""The networks: CNN encoder, LSTM decoder, attention."""
