"""Phrases of the messages about tables: numbers with nouns, lists of names, rows."""

from collections.abc import Iterable

from takehome.errors import one_line


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Names from somebody's file, at most `limit` of them, without terminal codes."""
    names = [one_line(name, 60) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def rows_named(rows: list[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:5]))}{', …' if len(rows) > 5 else ''}"


def first_sentence(error: Exception) -> str:
    return one_line(error, 160).split(". ")[0].rstrip(".")


def cell(text: str) -> str:
    """A text of the user's on one line of Markdown, also in a table."""
    return one_line(text).replace("|", "\\|")
