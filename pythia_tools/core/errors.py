"""The errors a user can meet, and the exit code each one becomes at the command line.

A message is one line and says what came, what is allowed, and what to do next.
Everything else that escapes is a bug of ours: exit 70, with its traceback.
"""

import difflib
import errno
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FOUND = 1
EXIT_REQUEST = 2
EXIT_ENVIRONMENT = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
FULL = "the disk is full; nothing was lost, free some space and run the same command again"
DENIED = "permission denied; name another place, or change its permissions"
ADVICE = {
    errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: FULL, errno.EACCES: DENIED, errno.EPERM: DENIED,
    errno.EROFS: "this disk can only be read; name another place",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed; name another place",
    errno.EISDIR: "this is a folder where a file is needed; name a file",
    errno.EIO: "the disk reports an error; look at the disk, or name another place",
    errno.EEXIST: "there is a file of this name where a folder is needed; name another place",
    errno.ENOENT: "no such file or folder, nor can it be made here; name another place",
    errno.ENAMETOOLONG: "this name is too long; name a shorter one",
    errno.ELOOP: "these links lead in a circle; name another place",
    errno.ESTALE: "the network disk lost this file; run the same command again",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) and run the same command again",
}
"""What the operating system may refuse, and what the user can do about it; any other refusal is a bug of ours."""


class PythiaToolsError(Exception):
    """Root of every error raised on purpose; `exit_code` is the command line's answer."""

    exit_code = EXIT_BUG


class RequestError(PythiaToolsError, ValueError):
    """The request was wrong: a bad option, an impossible combination, an unknown name."""

    exit_code = EXIT_REQUEST


class UnknownNameError(RequestError, LookupError):
    """A suite, model, step, order, term or command that does not exist."""


class DataError(PythiaToolsError, OSError):
    """A file is damaged, missing or not what it claims to be."""

    exit_code = EXIT_ENVIRONMENT


class EnvironmentFailure(PythiaToolsError, OSError):
    """The machine or the network failed: disk full, hub unreachable, a device missing."""

    exit_code = EXIT_ENVIRONMENT


def few(names: Iterable[object], most: int) -> str:
    """`a, b, c, … (9 in all)`: the first of some names, and how many there are where there are more."""
    listed = [str(name) for name in names]
    more = f", … ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def unknown(kind: str, came: object, allowed: Iterable[object], *, hint: str = "") -> UnknownNameError:
    """An UnknownNameError that names what came, the nearest of what is allowed, and all of it if short.

    Example: `unknown("suite", "pythai", ["pythia", "pythia-deduped"])` →
    "unknown suite 'pythai'; did you mean 'pythia'? known: pythia, pythia-deduped".
    """
    names = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(came), names, n=3)
    guess = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ";"
    shown = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
    return UnknownNameError(f"unknown {kind} {came!r}{guess} known: {shown or 'none'} {hint}".rstrip())


def refused(error: BaseException, target: object = None) -> EnvironmentFailure | None:
    """What the operating system refused (of `target`, if it is being written), with what to do; None when `error` is no
    such refusal.
    """
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return EnvironmentFailure(f"out of memory{detail}; ask for less at once, or use a larger machine")
    if not isinstance(error, OSError) or isinstance(error, PythiaToolsError) or not error.errno:
        return None
    advice = ADVICE.get(error.errno)
    if advice is None and target is not None:
        advice = f"cannot be written ({error.strerror}); name another place"
    return EnvironmentFailure(f"{target or error.filename or 'output'}: {advice}") if advice else None
