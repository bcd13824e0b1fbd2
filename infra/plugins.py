"""One file is one plug-in: `load(folder, name)` imports the file and returns its `build`."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from infra.errors import InvalidConfiguration, MissingDependency


def load(package: str, name: str, *, function: str = "build") -> Callable[..., Any]:
    """Return the `build` function of plug-in `name` in `package`, or another `function` of it.

    A plain name is a file of the folder. A dotted path is a third party's callable; it may come
    from operator settings only, never from a request.

    Raises:
        InvalidConfiguration: no such plug-in, or it does not do this; the message lists those
            there are.
    """
    if "." in name:
        return _load_path(name)
    if name not in available(package):
        raise InvalidConfiguration(
            f"No plug-in {name!r} in {package}; there are {', '.join(available(package))}"
        )
    module = importlib.import_module(f"{package}.{name}")
    found: Callable[..., Any] | None = getattr(module, function, None)
    if found is None:
        raise InvalidConfiguration(
            f"The plug-in {name!r} in {package} has no {function!r}; choose another of "
            f"{', '.join(available(package))}"
        )
    return found


def available(package: str) -> list[str]:
    """Names of the plug-ins in a folder, sorted; nothing of them is imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise InvalidConfiguration(f"No plug-in folder {package!r}")
    modules = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or raise with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingDependency(module, extra=extra) from error
        raise


def _load_path(path: str) -> Callable[..., Any]:
    module_name, _, attribute = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidConfiguration(f"Cannot load plug-in {path!r}: {error}") from error
    if not callable(target):
        raise InvalidConfiguration(f"Plug-in {path!r} is not callable")
    return target  # type: ignore[no-any-return]
