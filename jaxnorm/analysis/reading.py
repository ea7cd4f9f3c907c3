"""One line for whatever a damaged file raises."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from jaxnorm.errors import UserError

_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within it, what goes wrong is the fault of the file at `path`.

    Raises:
        UserError: naming the file, what is wrong with it and the mend.
    """
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(
            f"{path} is damaged ({reason}); restore it from a copy, or delete the folder it lies in and train again"
        ) from error
