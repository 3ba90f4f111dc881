"""Specs: every problem at once with its YAML path, overrides, and a hash that ignores key order."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from tfn_platform.errors import SpecError
from tfn_platform.spec import Spec, load_spec, parse_spec, read_yaml, spec_hash


class Member(Spec):
    name: str
    num_bins: int = Field(200, ge=2)
    rate: float | None = None


class Rendered(Spec):
    format: Literal["rendered"]
    count: int = Field(3, ge=1)


class Files(Spec):
    format: str
    videos: str
    annotations: str


class Pipeline(Spec):
    title: str
    members: list[Member] = []
    data: Rendered | Files | None = None
    threads: int = 1

    @field_validator("title")
    @classmethod
    def _is_lower(cls, title: str) -> str:
        if title != title.lower():
            raise ValueError(f"must be in lower case, got {title!r}")
        return title


@pytest.fixture
def yaml_path(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("title: demo\nmembers:\n  - {name: d32, num_bins: 32}\n  - name: d64\ndata:\n")
    return path


def problems_of(data: dict[str, object]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(Pipeline, data, source="a.yaml")
    return str(caught.value).splitlines()


def test_all_problems_are_reported_at_once_with_path_value_and_remedy() -> None:
    problems = problems_of(
        {
            "title": "Demo",
            "members": [{"name": "a", "num_bins": 1}, {"num_bin": 3}],
            "threads": 0.5,
        }
    )
    assert problems == [
        "a.yaml: 5 problems",
        "  title: must be in lower case, got 'Demo'",
        "  members[0].num_bins: input should be greater than or equal to 2, got 1",
        "  members[1].name: is needed and not given",
        "  members[1].num_bin: unknown key; did you mean 'num_bins'?",
        "  threads: input should be a valid integer, got a number with a fractional part, got 0.5",
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("thread", "did you mean 'threads'?"),
        ("qqqqq", "take it out"),
        ("num_bins", "it is a setting of another section"),
    ],
)
def test_unknown_key(key: str, hint: str) -> None:
    assert problems_of({"title": "demo", key: 1})[1:] == [f"  {key}: unknown key; {hint}"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"format": "rendered", "count": 0},
            ["  data.count: input should be greater than or equal to 1, got 0"],
        ),
        (
            {"format": "files", "vidoes": "v", "count": 3},
            [
                "  data.videos: is needed and not given",
                "  data.annotations: is needed and not given",
                "  data.vidoes: unknown key; did you mean 'videos'?",
                "  data.count: unknown key; it is a setting of another section",
            ],
        ),
    ],
)
def test_only_the_meant_kind_of_a_section_is_reported(
    data: dict[str, object], expected: list[str]
) -> None:
    """Pydantic lists the problems of all kinds, under paths with class names that no YAML holds."""
    assert problems_of({"title": "demo", "data": data})[1:] == expected


def test_spec_is_frozen() -> None:
    spec = Pipeline(title="demo")
    with pytest.raises(ValueError, match="frozen"):
        spec.title = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("members.0.num_bins=24", [24, 200]),
        ("members.d32.num_bins=24", [24, 200]),
        ("members.d64.num_bins=24", [32, 24]),
        ("members.1={name: new, num_bins: 5}", [32, 5]),
        ("members=[]", []),
    ],
)
def test_override_by_position_and_by_name(
    yaml_path: Path, override: str, expected: list[int]
) -> None:
    spec = load_spec(Pipeline, yaml_path, overrides=[override])
    assert [member.num_bins for member in spec.members] == expected


def test_overrides_apply_in_order_and_below_null(yaml_path: Path) -> None:
    overrides = ["data.format=rendered", "data.count=5", "data.count=7", "threads=2"]
    spec = load_spec(Pipeline, yaml_path, overrides=overrides)
    assert spec.data == Rendered(format="rendered", count=7)
    assert spec.threads == 2


def test_a_name_of_digits_can_be_addressed(tmp_path: Path) -> None:
    """A name that YAML reads as a number ended in a TypeError."""
    path = tmp_path / "spec.yaml"
    path.write_text("members:\n  - {name: 32}\n  - {other: 1}\n")
    assert read_yaml(path, overrides=["members.32.x=1"])["members"][0]["x"] == 1
    with pytest.raises(SpecError, match=r"no entry 'members\.9'; there are: 32, 1"):
        read_yaml(path, overrides=["members.9.x=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threads", "write it as path.to.field=value"),
        ("=3", "write it as path.to.field=value"),
        ("members..num_bins=3", "write it as path.to.field=value"),
        ("threads=[1", "the value is not valid YAML"),
        ("threads.x=1", "'threads' holds 4, no settings"),
        ("threads.x.y=1", "'threads' holds 4, no settings"),
        ("members.d99.num_bins=3", "no entry 'members.d99'; there are: d32, d64"),
        ("members.2=3", "no entry 'members.2'; there are: d32, d64"),
        ("members.².num_bins=3", "no entry"),
    ],
)
def test_bad_override(yaml_path: Path, override: str, message: str) -> None:
    overrides = ["threads=4", override]
    with pytest.raises(SpecError) as caught:
        load_spec(Pipeline, yaml_path, overrides=overrides)
    assert message in str(caught.value)
    assert repr(override) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"a: [1", "is not valid YAML"),
        (b"\xff\xfe\xfa", "is not valid YAML"),
        (b"- 1", "must hold a mapping of settings, got list"),
        (b"", "must hold a mapping of settings, got NoneType"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        load_spec(Pipeline, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def reversed_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_hash_does_not_depend_on_the_order_of_keys(value: object) -> None:
    assert spec_hash(value) == spec_hash(reversed_keys(value))


def test_hash_changes_with_every_value() -> None:
    specs = [
        Pipeline(title="a"),
        Pipeline(title="b"),
        Pipeline(title="a", threads=2),
        Pipeline(title="a", members=[Member(name="x")]),
        Pipeline(title="a", members=[Member(name="x", rate=0.1)]),
    ]
    hashes = {spec_hash(spec) for spec in specs}
    assert len(hashes) == len(specs)
    assert spec_hash(specs[0]) == spec_hash(specs[0].model_dump(mode="json"))
    assert all(len(text) == 16 for text in hashes)


def test_an_override_below_an_alias_changes_one_place(tmp_path: Path) -> None:
    """Members that share a YAML alias shared one object: an override of one changed them all."""
    path = tmp_path / "spec.yaml"
    path.write_text("a:\n  training: &shared {epochs: 1}\nb:\n  training: *shared\n")
    data = read_yaml(path, overrides=["a.training.epochs=5"])
    assert data == {"a": {"training": {"epochs": 5}}, "b": {"training": {"epochs": 1}}}
