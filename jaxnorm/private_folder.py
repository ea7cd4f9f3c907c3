"""Folders whose content is run as code: nobody but this user may change them."""

import os
import stat
from pathlib import Path


def private_folder(path: Path) -> Path | None:
    """Makes a folder and checks that only this user and root can change what is in it, or put another in its place.

    Args:
        path: the folder; folders above it are made, too.

    Returns:
        Its path without links; None if somebody else could change it, or it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        found = path.stat()
        shared = not stat.S_ISDIR(found.st_mode) or _others_write(found) or any(map(_others_rename, path.parents))
    except OSError:
        return None
    return None if shared else path


def is_private(file: Path) -> bool:
    """Whether something in a private folder is a file that only this user and root can change.

    Args:
        file: its path.

    Returns:
        False for links, folders and devices, too.

    Raises:
        OSError: if there is no such file.
    """
    found = file.lstat()
    return stat.S_ISREG(found.st_mode) and not _others_write(found)


def _others_rename(folder: Path) -> bool:
    """Whether others can rename what is in a folder. In a sticky one, such as /tmp, they cannot."""
    found = folder.stat()
    return _is_of_others(found) or (_others_write(found) and not found.st_mode & stat.S_ISVTX)


def _others_write(found: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):  # Windows keeps its users apart by other means
        return False
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)
    return _is_of_others(found) or bool(by_group or found.st_mode & stat.S_IWOTH)


def _is_of_others(found: os.stat_result) -> bool:
    return hasattr(os, "getuid") and found.st_uid not in (0, os.getuid())


def _is_own_group(number: int) -> bool:
    """Whether a group is this user's own. Many systems give each user one, and make new files writable for it."""
    try:
        import grp
        import pwd

        group, user = grp.getgrgid(number), pwd.getpwuid(os.getuid())
    except (ImportError, KeyError):
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
