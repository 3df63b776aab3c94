"""What a repository's index may name as a component: a class that belongs there, in the repository's folder.

The index comes with the repository, whoever made that. A class that it names is called with whatever lies in
a folder that it names, so neither may be anything but what the family asks for.
"""

from pathlib import Path
from typing import cast

import torch
from diffusers.guiders import BaseGuidance
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec
from diffusers.schedulers import SchedulerMixin
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from models.backend import ModelLoadError

KINDS = (SchedulerMixin, BaseGuidance, PreTrainedTokenizerBase, ProcessorMixin)
"""Of parts: within a kind a repository may have another class than its family's."""
CHOOSERS = {
    AutoTokenizer: (PreTrainedTokenizerBase,),
    AutoProcessor: (ProcessorMixin, PreTrainedTokenizerBase),
}
"""Types of families that stand for the classes which they choose."""


def refuse_component(spec: ComponentSpec, wanted: type, source: str | Path) -> None:
    """Refuse a component of a class that does not belong there, or from outside the repository.

    Args:
        spec: as the index has it.
        wanted: the type that the family gives the component.
        source: the repository's folder.

    Raises:
        ModelLoadError: with what to do.
    """
    allowed, named = allowed_for(wanted), spec.type_hint
    # Of a part it is not enough to be of a kind: a network would read whatever weights lie there.
    fits = isinstance(named, type) and issubclass(named, allowed)
    if not fits or issubclass(cast("type", named), torch.nn.Module) != issubclass(wanted, torch.nn.Module):
        kinds = " or ".join(kind.__name__ for kind in allowed)
        raise ModelLoadError(
            f"{source}: {spec.name} should be a {kinds}, and its index names "
            f"{getattr(named, '__name__', 'nothing')}: fetch the index and the folders of one repository"
        )
    if spec.pretrained_model_name_or_path is None:
        raise ModelLoadError(f"{source}: its index does not mention {spec.name}: fetch the repository again")
    place = Path(str(spec.pretrained_model_name_or_path), spec.subfolder or "")
    if not place.resolve().is_relative_to(Path(source).resolve()):
        raise ModelLoadError(
            f"{source}: its index takes {spec.name} from {place}, outside of that folder: fetch a repository "
            f"that is whole, or put those files into {Path(source, str(spec.name))} and name it there"
        )


def allowed_for(wanted: type) -> tuple[type, ...]:
    """The classes that do for a component: a network's own, and any of its kind where it is no network."""
    kinds = (kind for kind in KINDS if issubclass(wanted, kind))
    return tuple(dict.fromkeys((wanted, *kinds, *CHOOSERS.get(wanted, ()))))
