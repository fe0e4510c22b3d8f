"""The tiny world: arithmetic problems with worked reasoning, and a tokenizer to write them in."""
