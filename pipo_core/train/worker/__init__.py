"""The training process: ``python -m pipo_core.train.worker job.json``, one or, under torchrun, many.

`process` runs a job, `session` is ms-swift's pipeline with our parts. What differs between fine-tuning and distillation
is in files of the same names: ``sft_session``, ``sft_template`` and ``sft_examples`` beside ``opd_session``,
``opd_template`` and ``opd_examples``. docs/training-hooks.md says which hook is called when.
"""
