"""Components of pipelines that are no networks: schedulers, tokenizers, processors."""

from typing import Any

from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec
from transformers import PreTrainedTokenizerBase, Qwen2VLProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin


class StillsProcessor(Qwen2VLProcessor):
    """Qwen's processor of texts and pictures, without its half for videos, which needs torchvision."""

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Qwen's own would hand a third part to it.
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_part(spec: ComponentSpec) -> Any:  # noqa: ANN401 -- each component has a class of its own
    """Load a component that has no weights from where its index says, on this machine."""
    if spec.type_hint and issubclass(spec.type_hint, Qwen2VLProcessor):
        spec.type_hint = StillsProcessor
    return spec.load(local_files_only=True)
