"""The exception tree: what can go wrong, in the words of the person who has to act.

RagstoneError
 ├─ InvalidConfiguration     a setting or a plug-in name is wrong; the operator must act
 ├─ MissingDependency        an optional package is not installed; the message is the install line
 ├─ InvalidRequest           the caller asked for something impossible
 │   ├─ InvalidFilter
 │   ├─ IncomparableBaseline  a baseline of other cases, or of another version of the dataset
 │   ├─ TooLarge
 │   └─ Screened            a question that seems to instruct the model
 ├─ Unauthenticated          no key, or a wrong one
 ├─ Forbidden                the key does not open this
 ├─ RateLimited              too much at once or in this minute; later it is possible
 │   └─ BudgetExceeded       the money for it is spent
 ├─ NotFound                 collection, document, file, model
 ├─ Conflict                 the name is taken, or the state does not allow it
 ├─ UnreadableDocument       this one document cannot be read; the run goes on
 │   └─ Encrypted, Unsupported, EmptyDocument, Damaged, ExceedsLimit
 ├─ SourceFailed             a source cannot be listed or reached; nothing was removed
 │   └─ FetchFailed          one address did not give what it should; FetchRefused: it must not
 ├─ StorageFailed            disk full, database locked or unreachable
 ├─ CorruptIndex             a checkpoint does not match its checksums; the view rebuilds itself
 ├─ NotReady                 still starting, or a view lags behind the write it was asked to show
 ├─ Overloaded               every place at the model's servers is taken; later it is possible
 └─ EngineFailed             the generation engine did not answer
     └─ EngineTimedOut       not within the time that it had
         └─ EngineUnreachable  it took no connection in time; nothing was asked of it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class RagstoneError(Exception):
    """Everything raised on purpose; its message can be shown to the person who caused it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidConfiguration(RagstoneError):
    """A setting or a plug-in name is wrong."""


class MissingDependency(RagstoneError):
    """An optional package is needed and absent."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package!r} is not installed; run: pip install 'ragstone[{extra}]'")


class InvalidRequest(RagstoneError):
    """The caller asked for something impossible."""

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class InvalidFilter(InvalidRequest):
    """A metadata filter is malformed."""


class IncomparableBaseline(InvalidRequest):
    """A baseline has other cases, or is of another version of the dataset or metric."""


class TooLarge(InvalidRequest):
    """The request exceeds a stated limit."""


class Screened(InvalidRequest):
    """The question seems to tell the model what to do, and the guards are on."""


class Unauthenticated(RagstoneError):
    """No key was given, or it is unknown, revoked or expired."""


class Forbidden(RagstoneError):
    """The key is valid and does not open this."""


class RateLimited(RagstoneError):
    """Too much at once, or in this minute."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.headers: Mapping[str, str] = {}
        """The limits as they stand, for the answer."""


class BudgetExceeded(RateLimited):
    """The money that was set aside is spent, or would be."""


class NotFound(RagstoneError):
    """The named thing does not exist; near names are suggested, or all told where they are few."""

    def __init__(
        self, kind: str, name: str, *, among: Iterable[str] = (), are_few: bool = False
    ) -> None:
        known = list(among)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        if are_few and not near:
            hint = f"; there are {', '.join(map(repr, known))}" if known else "; there is none"
        super().__init__(f"No {kind} {name!r}{hint}")
        self.kind = kind
        self.name = name


class Conflict(RagstoneError):
    """The name is taken, or the state does not allow the change."""


class UnreadableDocument(RagstoneError):
    """One document cannot be read."""

    code = "unreadable"


class Encrypted(UnreadableDocument):
    """The document is protected by a password."""

    code = "encrypted"


class Unsupported(UnreadableDocument):
    """No loader reads this format."""

    code = "unsupported"


class EmptyDocument(UnreadableDocument):
    """The document holds no text."""

    code = "empty"


class Damaged(UnreadableDocument):
    """The document is truncated or malformed."""

    code = "damaged"


class ExceedsLimit(UnreadableDocument):
    """Reading the document would take more memory, time or disk than is allowed."""

    code = "exceeds_limit"


class SourceFailed(RagstoneError):
    """A source of documents cannot be listed or reached."""


class FetchFailed(SourceFailed):
    """An address did not give what was asked for; `status` is its HTTP status, if it had one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FetchRefused(FetchFailed):
    """The address, or what it leads to, is one that must not be fetched."""


class StorageFailed(RagstoneError):
    """Disk full, database locked or unreachable."""


class CorruptIndex(RagstoneError):
    """A checkpoint does not match its checksums."""


class NotReady(RagstoneError):
    """Still starting, or behind the write that was asked for."""


class Overloaded(RagstoneError):
    """Every place at the model's servers is taken, and as many wait as may."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineFailed(RagstoneError):
    """The generation engine did not answer."""


class EngineTimedOut(EngineFailed):
    """The engine did not answer within the time that it had."""


class EngineUnreachable(EngineTimedOut):
    """The engine took no connection within the time that it had, so nothing was asked of it."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of somebody else's library says, cut if it is long."""
    return str(error).strip().partition("\n")[0][:300]
