"""What the hub answers when it does not do what it was asked: a status and one sentence."""

from __future__ import annotations

import logging
import re
import time

from fusionlearn.errors import FusionlearnError


class Refusal(FusionlearnError):
    """A request that is refused; `status` is HTTP's, `kind` names the class of error on the wire."""

    def __init__(self, status: int, sentence: str, kind: str = "", **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.kind = kind or KINDS.get(status, "Refused")
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


KINDS = {
    400: "BadRequest", 401: "NotSigned", 403: "NotAllowed", 404: "NotFound", 405: "NotAllowed", 409: "Conflict",
    411: "BadRequest", 413: "TooLarge", 422: "NotValid", 429: "TooMany", 503: "Unavailable",
}  # fmt: skip


LOG = logging.getLogger("fusionlearn.hub")
QUIET = 60.0  # seconds between two lines of the log about the same trouble
_told: dict[str, float] = {}  # when


def unavailable(what: str, why: BaseException) -> Refusal:
    """The database, the store or the disk is gone: nothing was acknowledged; the client tries again.

    Why is for the operator's log alone.
    """
    if time.monotonic() - _told.get(what, -QUIET) >= QUIET:
        _told[what] = time.monotonic()
        LOG.warning("%s does not answer: %s", what, reason(why))
    return Refusal(503, f"{what} cannot be reached: nothing was taken. Try again in a minute.", Retry_After="30")


def reason(error: BaseException) -> str:
    """What a driver says of its trouble: one line, and no address's query, which may hold a credential."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", said.splitlines()[0])[:300]
