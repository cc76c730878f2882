"""What turns a chat, and the picture in it, into the inputs of a model: a processor, or the tokenizer of a text-only model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    MllamaProcessor,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

from spro_hf.errors import UserError

__all__ = ["chat_class", "load_processor", "template_of", "tokenizer_of"]

VIDEO = "video_processor"
PARTS = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}


class NoVideos(dict):
    """The settings of a processor's part for videos, kept so that they are saved again; it refuses to be called."""

    def __getattr__(self, name: str) -> Any:
        """A setting, None where it is left to the part that is not there; SmolVLM's template asks for some."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise UserError("videos: they need torchvision, which is not installed; show a guider pictures only.")


def chat_class(folder: str, id: str, field: str = "guider.id") -> type:
    """The auto class of the chat model in ``folder``, by its configuration: one that sees pictures, or a text-only one.

    Raises:
        UserError: if there is no configuration, or one of neither kind; ``id`` and ``field`` are for the message.
    """
    kind = type(_config(folder, id, field))
    # in this order, since some models of pictures and text are listed among the models of text too
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    raise UserError(f"{field}: '{id}' is a {kind.model_type}, which writes no text; name a chat (instruct) model.")


def load_processor(folder: str, id: str | None = None, field: str = "guider.id") -> Any:
    """The processor of the chat model in ``folder``, or its tokenizer where the model sees no pictures.

    Without torchvision pictures are prepared by PIL, and a processor that wants a part for videos, which cannot be had
    then, is made without that part: it is of its own class still and takes text and pictures as ever.

    Raises:
        UserError: if it cannot be read, lacks a package, or has no chat template; ``id`` and ``field`` are for the
            message.
    """
    id = id or folder
    sees = chat_class(folder, id, field) is AutoModelForImageTextToText
    try:
        processor = _processor(folder, type(_config(folder, id, field))) if sees else _part("tokenizer", folder)
    except ImportError as error:
        raise UserError(
            f"{field}: the processor of '{id}' wants a package that is not there ({_said(error)})"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{field}: '{id}' has no processor that loads ({_said(error)}); name a chat model.") from error
    if sees and not isinstance(processor, ProcessorMixin):
        raise UserError(f"{field}: '{id}' has no processor for pictures; name a repository that holds one.")
    if sees and processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    if template_of(processor) is None:
        raise UserError(f"{field}: '{id}' has no chat template; name a chat (instruct) model.")
    if isinstance(processor, MllamaProcessor):
        # It begins every text with this token, also the replies that TRL has tokenized alone; the template writes it.
        processor.bos_token = ""
    return processor


def template_of(processor: Any) -> str | None:
    """The chat template of a processor or tokenizer; the default one where it has several."""
    template = processor.chat_template
    return template.get("default") if isinstance(template, Mapping) else template


def tokenizer_of(processor: Any) -> Any:
    """A processor's tokenizer, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def _config(folder: str, id: str, field: str) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{field}: '{id}' is no model of transformers ({_said(error)}); name one that is.") from error


def _processor(folder: str, config: type) -> Any:
    kind = PROCESSOR_MAPPING.get(config, None)
    if kind is None or VIDEO not in kind.get_attributes() or is_torchvision_available():
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return _without_videos(kind, folder)


def _without_videos(kind: type, folder: str) -> Any:
    """A processor of ``kind`` whose list of parts leaves out the one for videos; the loading is the class's own."""
    names = [name for name in kind.get_attributes() if name != VIDEO]
    alone = type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: names)})
    settings, rest = kind.get_processor_dict(folder)
    # a constructor may want the argument; it drops it again, as the list of parts has no place for it
    processor = alone.from_args_and_dict([_part(name, folder) for name in names], {**settings, VIDEO: None}, **rest)
    processor.video_processor = NoVideos(VideoProcessorMixin.get_video_processor_dict(folder)[0])
    return processor


def _part(name: str, folder: str) -> Any:
    return PARTS[name].from_pretrained(folder, trust_remote_code=False)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def ends(model: Any, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer: the model's own, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    return sorted({*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None})
