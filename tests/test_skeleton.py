"""Skeletons as users write them: what is wrong is said, and nothing is guessed."""

import json

import pytest

from deeppose_tf import skeleton

GOOD = {
    "name": "hand-puppet",
    "joints": ["head", "left_hand", "right_hand", "waist"],
    "pairs": [["left_hand", "right_hand"]],
    "limbs": [{"name": "arm", "start": ["head"], "end": ["left_hand"]}],
    "diagonals": [["head", "waist"]],
}
NOTHING = {"pairs": [], "limbs": [], "diagonals": []}


@pytest.mark.parametrize("name", skeleton.SKELETONS)
def test_built_in_skeletons_survive_json(name):
    one = skeleton.SKELETONS[name]
    assert skeleton.from_json(json.loads(json.dumps(skeleton.to_json(one)))) == one


def test_a_skeleton_of_ones_own():
    one = skeleton.from_json(GOOD)
    assert one.mirror == (0, 2, 1, 3)
    assert [one.side(i) for i in range(4)] == ["middle", "left", "right", "middle"]
    assert one.limbs == (skeleton.Limb("arm", "arm", (0,), (1,)),)
    assert one.diagonals == ((0, 3),)
    alone = skeleton.from_json({"joints": ["tip", "root"]})
    assert alone.pairs == alone.limbs == alone.diagonals == ()


@pytest.mark.parametrize(
    "change, message",
    [
        (NOTHING | {"joints": []}, "no joints"),
        ({"joints": "head"}, "a list of names"),
        (NOTHING | {"joints": [1, 2]}, "whose name is no text"),
        (NOTHING | {"joints": ["a", "a"]}, "a joint twice"),
        ({"pairs": [["left_hand", "elbow"]]}, "'elbow' is missing"),
        ({"pairs": [["left_hand"]]}, "pairs"),
        ({"pairs": [["waist", "waist"]]}, "pairs a joint twice"),
        ({"limbs": [{"name": "arm", "start": "head", "end": ["waist"]}]}, "start"),
        ({"limbs": [{"name": "arm", "start": [], "end": ["waist"]}]}, "without an end"),
        ({"limbs": [{"start": ["head"], "end": ["waist"]}]}, "'name' is missing"),
        ({"diagonals": [["head"]]}, "diagonals"),
        ({"diagonals": None}, "not of the form"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, change, message):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=message) as caught:
        skeleton.load(str(path))
    assert str(path) in str(caught.value)
