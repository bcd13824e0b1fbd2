"""A section of a specification; what stands under its fields is their description in the schema."""

from __future__ import annotations

from pydantic import ConfigDict

from infra.section import Section


class Part(Section):
    """A group of keys; one that nobody knows is an error."""

    model_config = ConfigDict(use_attribute_docstrings=True)
