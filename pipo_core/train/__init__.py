"""Fine-tuning through ms-swift in a process of its own, and merging what it made."""
