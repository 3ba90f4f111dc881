"""The tree of errors in the docstring is the one in the code."""

import inspect

from tfn_platform import errors


def test_the_docstring_names_every_error_and_each_is_a_tfn_error() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) > 1
    for cls in classes:
        assert issubclass(cls, errors.TfnError)
        assert cls.__name__ in (errors.__doc__ or "")
