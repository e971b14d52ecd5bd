"""A network from the user's own package, which gives logits: what a checkpoint is for."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as validated
from torch import nn

from trainables.backbones.base import Backbone
from trainables.errors import UnknownName
from trainables.registry import STRICT, importer, load_plugin


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """They reach an id, and travel to workers, as JSON."""
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected plain values: {error}") from None
    return arguments


@validated(frozen=True, kw_only=True, config=STRICT)
class Network(Backbone):
    """Images (B, C, H, W) -> logits (B, K); a study file calls it `module:name`.

    Its weights are a checkpoint's, and it has no features apart from its logits. The source of
    its top-level package is part of its identity, as a plugin's is.

    Attributes:
        arguments: keyword arguments of the class, or of the function that makes the network.
    """

    unhashed: ClassVar[Mapping[str, Any]] = {"embedding": None, "arguments": {}}
    channels_last: ClassVar[bool] = False  # `view`, which many networks use, refuses it

    embedding: None = None
    arguments: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(default_factory=dict)

    def __hash__(self) -> int:
        """Of what makes it, whose arguments may be lists."""
        return hash(json.dumps(self.spec(), sort_keys=True))

    @property
    def width(self) -> int:
        """0: it has no features."""
        return 0

    @property
    def trunk_width(self) -> int:
        """0 likewise."""
        return 0

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network alone."""
        return nn.Sequential(self.build(shape))

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The network, whatever the shape.

        Raises:
            ValueError: what was named makes no torch module, or not of these arguments.
        """
        module, _, name = self.name.partition(":")
        try:
            made = getattr(sys.modules[module], name)(**self.arguments)
        except Exception as error:
            raise ValueError(f"cannot be made with arguments {self.arguments}: {error}") from error
        if not isinstance(made, nn.Module):
            raise ValueError(f"{self.name} made {type(made).__name__}, no torch.nn.Module")
        return made


@importer("backbone")
@functools.cache
def network(name: str) -> type[Network]:
    """The component of `module:name`, a class or a function that makes a `torch.nn.Module`.

    Raises:
        BadPlugin: the module cannot be imported.
        UnknownName: it has nothing of that name that can be called.
    """
    module, _, attribute = name.partition(":")
    load_plugin(module)
    found = vars(sys.modules[module])
    known = [key for key, value in found.items() if callable(value) and not key.startswith("_")]
    if attribute not in known:
        raise UnknownName(f"network of {module}", attribute, known)
    return type(attribute, (Network,), {"__module__": module, "name": name, "revision": 1})
