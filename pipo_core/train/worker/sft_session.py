"""A supervised fine-tuning in this process (paper, section 4.1)."""

from pathlib import Path
from typing import Any

import torch
from swift import SftArguments

from pipo_core.model import LossWeights
from pipo_core.model.frequent_tokens import FrequentTokens
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.token_cache import examples_folder
from pipo_core.train.worker.session import PairSession
from pipo_core.train.worker.sft_examples import EncodedExamples, encode_examples
from pipo_core.train.worker.sft_template import SftLossSettings, TrainingProgress


class SftSession(PairSession):
    """Supervised fine-tuning of the pair model or of the uncompressed one."""

    def __init__(self, arguments: SftArguments, recipe: TrainRecipe, *, cache: Path, **common: Any) -> None:
        """Load model and tokenizer.

        Args:
            arguments: ms-swift's.
            recipe: what they were made from.
            cache: where all runs keep tokenized examples.
            common: keyword arguments of `PairSession`.
        """
        self._sft = recipe
        self._cache = cache
        super().__init__(arguments, recipe, **common)

    def _prepare_model_tokenizer(self, **kwargs: Any) -> None:
        compressor = self._sft.compressor if self._sft.objective == "pipo" else None
        random_seed = self._sft.seed if self._sft.start == "random" else None
        super()._prepare_model_tokenizer(compressor=compressor, random_seed=random_seed, **kwargs)

    def _prepare_template(self) -> None:
        super()._prepare_template()
        loss = self._sft.loss
        self.template.settings = SftLossSettings(
            objective=self._sft.objective,
            pad_phases=self._sft.pad_augmentation,
            prompt_shift=self._sft.prompt_shift,
            seed=self._sft.seed,
            weights=LossWeights(mtp=loss.mtp, confidence=loss.confidence, chunk=loss.chunk),
            progress=self._progress,
            check_loss=self._nan_guard.check_loss,
        )

    def _progress(self) -> TrainingProgress:
        """Return how far training is. It is exact, because a step's batches are collated when the step begins."""
        state = self.trainer.state
        return TrainingProgress(state.global_step / state.max_steps, int(state.epoch or 0))

    def _prepare_dataset(self) -> tuple[EncodedExamples, EncodedExamples | None]:
        data = self._sft.data
        train = self._encoded(Path(data.train), "train", data.limit)
        validation = self._encoded(Path(data.validation), "validation", None) if data.validation else None
        return train, validation

    def _encoded(self, file: Path, name: str, limit: int | None) -> EncodedExamples:
        """Return the examples of a data file, tokenized now unless the cache has them."""
        max_length = self._sft.data.max_length
        folder = examples_folder(self._cache, file, Path(self._sft.model), max_length=max_length, limit=limit)
        if self.args.local_rank in (-1, 0):  # one process of each node, for nodes may have disks of their own
            done = 0

            def count(number: int) -> None:
                nonlocal done
                done = number
                self._events.count("encode", name=name, done=number)

            encode_examples(
                file,
                folder,
                encode=self.template.encode,
                max_length=max_length,
                limit=limit,
                progress=count,
                warn=lambda message: self._events.write("warn", message=message),
            )
            if done:
                self._events.write("encode", name=name, done=done)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        return EncodedExamples(folder, augmented=name == "train")

    def _token_counts(self) -> FrequentTokens:
        counts: FrequentTokens = self.trainer.train_dataset.count_labelled_tokens()
        return counts
