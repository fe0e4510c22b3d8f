"""Fine-tuning and distillation as the user's process sees them: checked, planned, started, heard and explained.

Nothing here imports torch, transformers or ms-swift. The training itself runs in processes of its own, whose code is
`pipo_core.train.worker`; both sides share the files and events that are described here.
"""
