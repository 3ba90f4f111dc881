"""Every public function of the models says the shapes of its tensors and its errors."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def model_files() -> list[str]:
    root = Path(__file__).resolve().parents[1]
    return sorted(path.relative_to(root).as_posix() for path in root.glob("tfn_models/**/*.py"))


def complaints(source: str) -> list[str]:
    found = []
    for function in public_functions(ast.parse(source)):
        docstring = ast.get_docstring(function) or ""
        result = ast.unparse(function.returns) if function.returns else ""
        signature = ast.unparse(function.args) + result
        if "Tensor" in signature and not re.search(r"\[|scalar", docstring):
            found.append(f"{function.name} (line {function.lineno}) says no shape")
        raises = any(isinstance(node, ast.Raise) for node in ast.walk(function))
        if raises and not re.search(r"ValueError|[Rr]efuse", docstring):
            found.append(f"{function.name} (line {function.lineno}) raises and does not say so")
    return found


@pytest.mark.parametrize("path", model_files())
def test_says_shapes_and_errors(repository: Path, path: str) -> None:
    assert not complaints((repository / path).read_text())


def test_the_complaints() -> None:
    source = '''
def bare(x: Tensor) -> int:
    """Does it."""

class Public:
    def method(self):
        """Does it."""
        raise ValueError

def fine(x: Tensor) -> Tensor:
    """[B] -> [B]; ValueError for nothing."""
    raise ValueError
'''
    assert complaints(source) == [
        "bare (line 2) says no shape",
        "method (line 6) raises and does not say so",
    ]
