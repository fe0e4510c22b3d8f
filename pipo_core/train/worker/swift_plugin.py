"""Registers the pair model and the templates with ms-swift, under names of our own."""

from pathlib import Path
from typing import Any

import torch
from swift.model import ModelLoader, ModelMeta, register_model
from swift.template import register_template
from swift.template.templates.qwen import QwenTemplateMeta
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from typing_extensions import override

from pipo_core.chat import load_tokenizer
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.checkpoint import load_config, random_model, start_compressor
from pipo_core.model.weight_files import PIPO_ARCHITECTURE
from pipo_core.recipes.sft import Compressor
from pipo_core.train.worker.opd_template import OpdTemplate
from pipo_core.train.worker.sft_template import SftTemplate
from pipo_core.train.worker.swift_arguments import MODEL_TYPE, OPD_TEMPLATE, SFT_TEMPLATE
from pipo_core.train.worker.template import PairTemplate


def register() -> None:
    """Register model type and templates; it may be called again."""
    for name, template in ((SFT_TEMPLATE, SftTemplate), (OPD_TEMPLATE, OpdTemplate)):
        _register_template(name, template)
    register_model(
        ModelMeta(
            model_type=MODEL_TYPE,
            model_groups=[],
            template=SFT_TEMPLATE,
            loader=PairLoader,
            architectures=[PIPO_ARCHITECTURE],
            is_multimodal=False,
        ),
        exist_ok=True,
    )


def _register_template(name: str, template: type[PairTemplate]) -> None:
    register_template(
        QwenTemplateMeta(
            name,
            template_cls=template,
            default_system=None,
        ),
        exist_ok=True,
    )


class _TokenizerLoader:
    """Stands where ms-swift calls transformers' `AutoTokenizer`, which may read `tokenizer.json` by another pattern."""

    @staticmethod
    def from_pretrained(folder: str, **_: Any) -> PreTrainedTokenizerBase:
        """Return the tokenizer of a checkpoint folder, as decoding loads it."""
        return load_tokenizer(Path(folder))


class PairLoader(ModelLoader):
    """Loads with `load_checkpoint`, which refuses missing weights; transformers would start them at random."""

    default_trust_remote_code = False

    def __init__(
        self, *args: Any, compressor: Compressor | None = None, random_seed: int | None = None, **kwargs: Any
    ) -> None:
        """Load with the recipe's compressor and start.

        Args:
            args: ms-swift's.
            compressor: None takes the checkpoint's or the default.
            random_seed: seed of random weights; None loads the checkpoint's.
            kwargs: ms-swift's.
        """
        super().__init__(*args, **kwargs)
        self.auto_tokenizer_cls = _TokenizerLoader
        self.compressor = compressor
        self.random_seed = random_seed

    @override
    def get_config(self, model_dir: str) -> PretrainedConfig:
        """Return the text configuration, nested or flat."""
        return load_config(Path(model_dir))

    @override
    def get_model(
        self, model_dir: str, config: PretrainedConfig, processor: PreTrainedTokenizerBase, model_kwargs: Any
    ) -> Qwen3_5ForCausalPIPO:
        """Return the model, with the recipe's compressor if the checkpoint has none."""
        device = model_kwargs.get("device_map") or "cpu"
        if self.random_seed is None:
            model = load_checkpoint(model_dir, dtype=self.torch_dtype, device=device)
        else:
            torch.manual_seed(self.random_seed)
            model = random_model(model_dir, dtype=self.torch_dtype, device=device)
        if self.compressor is not None:
            start_compressor(model, Path(model_dir), self.compressor)
        model.name_or_path = model_dir
        return model
