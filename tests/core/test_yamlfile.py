"""The YAML reader: numbers as they are meant, lines of keys, and faults that say where."""

import pytest

from bystander.core.errors import StudyError
from bystander.core.yamlfile import read_text, read_yaml


def test_yaml_reads_exponents_as_numbers_and_knows_lines():
    parsed = read_yaml("a: 1e-4\nb:\n  c: [1, 2]\n")
    assert parsed.data == {"a": 1e-4, "b": {"c": [1, 2]}}
    assert parsed.line_of(("b", "c")) == 3
    assert parsed.line_of(("b", "missing")) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2\n", "line 2: 'a' stands twice (first on line 1)"),
        ("a: [1\n", "not valid YAML"),
        ("", "the file is empty"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
    ],
)
def test_yaml_faults_say_where(text, fault):
    assert any(fault in found for found in read_yaml(text).faults)


def test_binary_file_is_named_as_such(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_text(tmp_path / "x.yaml", "study file")


def test_study_error_lists_every_fault():
    assert str(StudyError("bad", ["one", "two"])) == "bad\n  - one\n  - two"
