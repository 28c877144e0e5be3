"""The policy: a model and its tokenizer."""
