"""torch.compile for the blocks that a transformer repeats, which is where its time goes.

Compiled are the blocks and not the whole: the graph is small, and one serves all of them. Shapes are left
open, so that another size or number of rows is not compiled anew; but one row and several are two graphs.
"""

import os
import shutil
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers import ModelMixin

from models.backend import ModelLoadError

OPTIONS: dict[str, Any] = {"dynamic": True}
"""Of `torch.nn.Module.compile`."""
COMPILERS = ("gcc", "g++", "cc", "c++", "clang")
BLOCKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"SD3Transformer2DModel": ("JointTransformerBlock",)}
)
"""The repeated blocks of transformers for which diffusers does not name them."""


def refuse_compilation() -> None:
    """Refuse to compile where torch could not.

    Raises:
        ModelLoadError: with what to do.
    """
    named = [os.environ[name] for name in ("CC", "CXX") if name in os.environ]
    if not any(shutil.which(compiler) for compiler in (*named, *COMPILERS)):
        raise ModelLoadError(
            "compile = true needs a C++ compiler on this machine, and there is none: install g++"
        )


def compile_blocks(transformer: ModelMixin) -> None:
    """Have the repeated blocks compiled when they are first called.

    Raises:
        ModelLoadError: which they are is not known.
    """
    family = type(transformer).__name__
    repeated = getattr(transformer, "_repeated_blocks", None) or BLOCKS.get(family, ())
    blocks = [module for module in transformer.modules() if type(module).__name__ in repeated]
    if not blocks:
        raise ModelLoadError(f"{family} has no blocks that are known to repeat: leave compile = true out")
    with warnings.catch_warnings():
        # The compiler imports a part of torch that uses torch.jit.
        warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
        for block in blocks:
            block.compile(**OPTIONS)
