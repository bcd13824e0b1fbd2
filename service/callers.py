"""Who asks: what a key stands for, and what it opens."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from infra.contracts import Access
from infra.errors import Forbidden, InvalidRequest, NotFound

Scope: TypeAlias = Literal["ask", "models", "read", "write", "admin"]
"""`ask`: answers and searches; `models`: completions, embeddings and the like; `read` and `write`:
files, collections, artifacts, runs; `admin`: jobs, fine-tuning, keys, budgets, routes."""
SCOPES: frozenset[Scope] = frozenset({"ask", "models", "read", "write", "admin"})
MAX_LIMIT = 10**12
"""A trillion in a minute is none; larger numbers are mistakes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much in a minute, and how much at once; None is without a limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "max_concurrent"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_LIMIT:
                raise InvalidRequest(
                    f"{name} is {value!r}; it is between 1 and {MAX_LIMIT:,}, or left out",
                    parameter=name,
                )


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    key_id: str | None = None
    """None where no key is asked for."""
    name: str = "local"
    tenant: str | None = None
    """Confines the caller to this tenant's documents; None is the operator's, who sees all."""
    groups: frozenset[str] = frozenset()
    """Such as `group:board`; beside `key:NAME`, what lists of documents may name it by."""
    scopes: frozenset[Scope] = SCOPES
    models: tuple[str, ...] | None = None
    """Patterns of the models it may use; None are all."""
    collections: tuple[str, ...] | None = None
    """Patterns of the collections it may see; None are all."""
    limits: Limits = NO_LIMITS

    @property
    def access(self) -> Access | None:
        """Which documents it may see; None are all."""
        if self.tenant is None:
            return None
        return Access(self.tenant, self.groups | {f"key:{self.name}"})

    def require(self, *scopes: Scope) -> None:
        """Refuse what the key was not made for; one of the scopes is enough.

        Raises:
            Forbidden: names the scopes that are missing.
        """
        if self.scopes.isdisjoint(scopes):
            missing = " or ".join(map(repr, scopes))
            raise Forbidden(f"The key {self.name!r} does not have the scope {missing}")

    def may_use(self, model: str) -> bool:
        """Whether the model is the key's."""
        return _matches(model, self.models)

    def require_operator(self) -> None:
        """Refuse a tenant's key: who may make keys and budgets could open every tenant.

        Raises:
            Forbidden: the key is confined to a tenant.
        """
        if self.tenant is not None:
            raise Forbidden(f"The key {self.name!r} is confined to the tenant {self.tenant!r}")

    def may_see(self, collection: str) -> bool:
        """Tell whether a collection's name is among those that the key was made for."""
        return _matches(collection, self.collections)

    def require_model(self, model: str) -> None:
        """Refuse a model that is not the key's, as if there were none of that name.

        Raises:
            NotFound: the key may not use the model.
        """
        if not self.may_use(model):
            raise NotFound("model", model)

    def require_collection(self, name: str) -> None:
        """Refuse a collection that is not the key's, as if there were none of that name.

        Raises:
            NotFound: the key may not see the collection.
        """
        if not self.may_see(name):
            raise NotFound("collection", name)


def _matches(name: str, patterns: tuple[str, ...] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
