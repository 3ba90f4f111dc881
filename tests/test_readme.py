"""What README shows as Python runs."""

import re
from pathlib import Path

import pytest


def python_blocks(repository: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.S | re.M)


@pytest.mark.parametrize("number", [0])
def test_block_runs(repository: Path, number: int) -> None:
    blocks = python_blocks(repository)
    assert len(blocks) == 1, "one more block: one more number above"
    names: dict[str, object] = {}
    exec(compile(blocks[number], "README.md", "exec"), names)
    assert len(names["kept"].scores) == 100
