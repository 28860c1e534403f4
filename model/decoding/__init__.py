"""Decoding algorithms: greedy, beam search, sampling, neuraltalk2's own; rules and reranking."""
