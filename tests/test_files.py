"""Files that are written and read back: digests, locks, and what is no file of ours."""

import json
import os
import subprocess
import sys
import time

import pytest

from deeppose_tf import files


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"format": 2, "x": [1.5, "é"], "y": {"b": None}}, True)
    return path


def test_json_comes_back_without_its_digest(sealed):
    value = {"format": 2, "x": [1.5, "é"], "y": {"b": None}}
    assert files.read_json(sealed, (1, 2)) == value
    assert files.read_json(sealed) == value
    # Spaces and order say nothing.
    content = json.loads(sealed.read_text())
    sealed.write_text(json.dumps(dict(sorted(content.items(), reverse=True))))
    assert files.read_json(sealed, (2,)) == value


def test_no_flipped_bit_changes_what_is_read(sealed):
    content, value = sealed.read_bytes(), files.read_json(sealed)
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        sealed.write_bytes(damaged)
        try:
            found = files.read_json(sealed, (1, 2))
            # In the name of the digest, a bit hides it alone.
            assert {name: found[name] for name in value} == value
        except ValueError as error:
            assert str(sealed) in str(error)


def test_an_edited_copy_may_leave_the_digest_out(sealed):
    content = json.loads(sealed.read_text())
    edited = content | {"x": 7}
    sealed.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match="a.json is damaged: .* not that of its 'dig"):
        files.read_json(sealed)
    del edited["digest"]
    sealed.write_text(json.dumps(edited))
    assert files.read_json(sealed)["x"] == 7


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 10**5, b'{"format":' * 10**5, b"\xff", b"9" * 10**4]
)
def test_what_is_no_json_of_ours_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.json is damaged: "):
        files.read_json(path, (1,))


def test_devices_pipes_and_what_has_no_end_are_not_read(tmp_path):
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "long", "wb") as file:
        file.truncate(files.MOST_JSON + 1)
    for name in ("device", "pipe", "long"):
        with pytest.raises(ValueError, match=name):
            files.read_json(tmp_path / name)


def test_the_second_writer_hears_who_the_first_is(tmp_path):
    code = (
        "import sys, time; from deeppose_tf import files\n"
        "with files.alone(sys.argv[1], 'training'): print(1, flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first.stdout.readline()
    with pytest.raises(ValueError, match="run: another training is writing") as raised:
        with files.alone(tmp_path / "run", "training"):
            pass
    first.communicate(b"\n")
    if os.path.exists("/proc/locks"):
        said = str(raised.value)
        assert f"process {first.pid}, since " in said
        since = time.strptime(said.partition("since ")[2], "%Y-%m-%d %H:%M:%S")
        assert abs(time.time() - time.mktime(since)) < 60
    # It wrote nothing, and left nothing.
    assert not (tmp_path / "run").exists()


def test_json_of_others_is_read_with_the_same_care(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match="nested too deep"):
        files.load_json(tmp_path / "deep.json")
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.load_json(tmp_path / "bom.json") == [1]
    for content in (b"\x1f\x8b\x08", b"PK\x03\x04"):
        (tmp_path / "packed.json").write_bytes(content)
        with pytest.raises(ValueError, match="compressed: unpack it first"):
            files.load_json(tmp_path / "packed.json")
