"""What may be overwritten: one's own results of the same settings, nothing else."""

import json

import pytest

from deeppose_tf.pipelines.cli import outputs

MINE = {"model": "runs/lsp", "data": "parse", "split": "test", "limit": None}


def require_free(folder, settings):
    outputs.require_free(str(folder), "it.json", "form", settings, ["it.json", "it.md"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results of the settings MINE, made from the folder above."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "lsp").mkdir(parents=True)
    (tmp_path / "newest").symlink_to("runs/lsp")
    (tmp_path / "out").mkdir()
    content = {"format": "form", "settings": MINE}
    (tmp_path / "out" / "it.json").write_text(json.dumps(content))
    return tmp_path / "out"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "runs/lsp/"},
        {"model": "newest", "data": "./parse"},
    ],
)
def test_paths_may_be_written_in_other_ways(folder, changes):
    require_free(folder, MINE | changes)
    absolute = {"data": str(folder.parent / "parse")}
    require_free(folder, MINE | changes | absolute)


@pytest.mark.parametrize(
    "changes", [{"model": "runs"}, {"split": "./test"}, {"limit": 3}, {"new": 1}]
)
def test_other_settings_are_another_run(folder, changes):
    with pytest.raises(ValueError, match="it.json: there already, and of another run"):
        require_free(folder, MINE | changes)


def test_lists_of_paths_keep_their_order(folder):
    content = {"format": "form", "settings": {"evaluations": ["a", "b/"]}}
    (folder / "it.json").write_text(json.dumps(content))
    require_free(folder, {"evaluations": ["a/", "b"]})
    with pytest.raises(ValueError, match="there already"):
        require_free(folder, {"evaluations": ["b", "a"]})


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"format": "form"}', '{"settings": 1}']
)
def test_what_is_no_record_is_not_ours(folder, content):
    (folder / "it.json").write_text(content)
    with pytest.raises(ValueError, match="there already"):
        require_free(folder, MINE)


def test_one_of_many_is_not_plural():
    """ "1 people on 1 images" was printed."""
    said = [outputs.counted(n, one) for n in (0, 1, 2) for one in ("person", "image")]
    assert said == [
        "0 people",
        "0 images",
        "1 person",
        "1 image",
        "2 people",
        "2 images",
    ]
