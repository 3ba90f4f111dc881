"""The errors that a user can meet, as one tree.

TfnError
├── SpecError       a job spec says something impossible (lists every problem with its YAML path)
├── TableError      a table is missing, damaged, or made under another contract than needed
├── DataError       an annotation, prediction or video file does not say what it should
├── StageError      a stage could not finish
└── ResourceError   the cluster, the job server or the storage cannot give what was asked for

A program that ends with one of these prints its text and no traceback: the text says what was
wrong, what it got, and what would do.
"""


class TfnError(Exception):
    """The root: whatever the user can do something about."""


class SpecError(TfnError, ValueError):
    """A job spec that cannot be run as it is written."""


class TableError(TfnError):
    """A table that does not hold what its reader needs."""


class DataError(TfnError, ValueError):
    """A file from outside that does not say what it should."""


class StageError(TfnError):
    """A stage that could not finish."""


class ResourceError(TfnError):
    """A cluster, server or storage that cannot give what was asked for."""
