"""Numbers as words, for messages and reports."""


def duration(seconds: float, digits: int = 0) -> str:
    """A duration in at most two units.

    Args:
        seconds: the duration.
        digits: decimals of a duration below one minute.

    Returns:
        The words.

    Examples:
        >>> duration(42), duration(4.21, digits=1), duration(200), duration(7_500)
        ('42 s', '4.2 s', '3 min 20 s', '2 h 05 min')
    """
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    Args:
        count: the number.
        noun: its singular; the plural adds an s.

    Returns:
        The words.

    Examples:
        >>> counted(1, "run"), counted(1_200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
