"""Where and in which colour things are drawn; how they look is for the eye."""

import cv2
import numpy as np
import pytest

from deeppose_tf import draw, files, plot, skeleton

LSP = skeleton.LSP
WHITE = (255, 255, 255)
# Two joints joined by a stick, and a third on its own.
SMALL = skeleton.Skeleton(
    "small",
    ("left_a", "right_a", "b"),
    ((0, 1),),
    (
        skeleton.Limb("across", "x", (0,), (1,)),
        skeleton.Limb("down", "x", (0,), (2,)),
        skeleton.Limb("middle", "x", (0, 1), (2,)),
    ),
    (),
)
NOWHERE = (np.nan, np.nan)


def black(height=60, width=90):
    return np.zeros((height, width, 3), np.uint8)


def painted(image, color):
    """Pixels of exactly this colour, [H, W] bool."""
    return (image == np.array(color, np.uint8)).all(axis=-1)


def is_near(pixel, color):
    """Lines are antialiased: their middle is not quite of their colour."""
    return np.abs(pixel.astype(int) - color).max() < 30


def centre(image):
    """Centre of mass of the light in the image, in the project's coordinates."""
    light = image.sum(axis=-1).astype(float)
    light[light < 300] = 0  # the dark rim of the dot
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


@pytest.mark.parametrize("point", [(20.5, 30.5), (20.0, 31.0), (0.5 + 40, 12.8)])
def test_a_dot_is_centred_under_its_joint(point):
    drawn = draw.draw_pose(black(), [point, NOWHERE, NOWHERE], SMALL, color=WHITE)
    # OpenCV rounds the outline of small disks; half a pixel off would be 0.5.
    np.testing.assert_allclose(centre(drawn), point, atol=0.2)


def test_half_is_the_centre_of_the_first_pixel():
    # A disk in the middle is a diamond of 13 pixels in its full colour, and a blended
    # edge; of one around the first pixel the lower right quarter is left.
    diamond = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    for x, y, count in ((30.5, 20.5, 13), (0.5, 0.5, 6)):
        drawn = draw.draw_pose(black(), [(x, y), NOWHERE, NOWHERE], SMALL)
        solid = painted(drawn, draw.COLORS["left"])
        assert solid.sum() == count
        corner = solid[int(y) : int(y) + 3, int(x) : int(x) + 3]
        np.testing.assert_array_equal(corner, diamond)


def test_a_line_runs_between_subpixel_joints():
    drawn = draw.draw_pose(black(), [(10, 30.8), (80, 30.8), NOWHERE], SMALL)
    column = drawn[:, 45].sum(axis=-1).astype(float)  # [H] light across the line
    middle = (column * (np.arange(60) + 0.5)).sum() / column.sum()
    assert middle == pytest.approx(30.8, abs=0.1)


def test_sides_have_their_colours_and_a_limb_across_is_in_the_middle():
    keypoints = [(20.5, 20.5), (70.5, 20.5), (20.5, 50.5)]
    drawn = draw.draw_pose(black(), keypoints, SMALL)
    assert is_near(drawn[20, 20], draw.COLORS["left"])
    assert is_near(drawn[20, 70], draw.COLORS["right"])
    assert is_near(drawn[50, 20], draw.COLORS["middle"])
    assert is_near(drawn[20, 45], draw.COLORS["middle"])  # across
    assert is_near(drawn[35, 20], draw.COLORS["left"])  # left to middle
    one = draw.draw_pose(black(), keypoints, SMALL, color=(1, 200, 3))
    assert not painted(one, draw.COLORS["left"]).any()
    assert is_near(one[20, 70], (1, 200, 3)) and is_near(one[35, 20], (1, 200, 3))


def test_colours_are_of_the_person_s_sides_wherever_they_are_in_the_image():
    # The joints of one person in a row, in an order that is no person's.
    keypoints = np.stack([np.arange(14) * 20 + 10.5, np.full(14, 20.5)], axis=-1)
    for order in (np.arange(14), np.array(LSP.mirror)):
        drawn = draw.draw_pose(black(40, 300), keypoints[order], LSP)
        for joint, name in enumerate(LSP.joints):
            side = name.split("_")[0]
            x = int(keypoints[order][joint, 0])
            assert tuple(drawn[20, x]) == draw.COLORS.get(side, draw.COLORS["middle"])


def test_what_is_not_labeled_or_not_finite_is_not_drawn():
    keypoints = np.array([(20.5, 20.5), (70.5, 20.5), (20.5, 50.5)])
    labeled = np.array([True, False, True])
    drawn = draw.draw_pose(black(), keypoints, SMALL, labeled)
    assert drawn[20, 70].sum() == 0 and drawn[20, 45].sum() == 0
    assert drawn[35, 20].sum() > 0
    keypoints[1] = np.inf
    np.testing.assert_array_equal(draw.draw_pose(black(), keypoints, SMALL), drawn)
    nothing = draw.draw_pose(black(), np.full((3, 2), np.nan), SMALL)
    assert nothing.sum() == 0


def test_what_is_unsure_is_hollow_and_its_limbs_thin():
    """A guess was drawn as boldly as what was seen."""
    keypoints = [(100.5, 200.5), (800.5, 200.5), (100.5, 700.5)]
    scores = np.array([0.9, draw.SURE - 0.01, draw.SURE])
    drawn = draw.draw_pose(black(1500, 900), keypoints, SMALL, scores=scores)
    bold = draw.draw_pose(black(1500, 900), keypoints, SMALL)
    width = draw.line_width(drawn)
    for image, middle in ((drawn, draw.DARK), (bold, draw.COLORS["right"])):
        assert is_near(image[200, 803], middle)
        assert is_near(image[200, 100], draw.COLORS["left"])
        assert image[199 + width, 800, 2] > 150  # the ring

    def light(image, row, column):
        return painted(image[row, column], draw.COLORS["middle"]).sum()

    across = slice(180, 220), 650
    assert light(bold, *across) >= width >= 2 * light(drawn, *across) > 0
    np.testing.assert_array_equal(drawn[400:600, :150], bold[400:600, :150])


@pytest.mark.parametrize("far", [1e4, -1e9, 1e300])
def test_joints_far_outside_the_image_do_no_harm(far):
    keypoints = [(20.5, 20.5), (far, 20.5), (far, -far)]
    drawn = draw.draw_pose(black(), keypoints, SMALL)
    assert is_near(drawn[20, 20], draw.COLORS["left"])


def test_the_line_follows_the_size_of_the_image_and_nothing_is_written_into_it():
    image = black(1500, 900)
    keypoints = np.array([(100.5, 200.5), (800.5, 200.5), NOWHERE])
    drawn = draw.draw_pose(image, keypoints, SMALL)
    assert image.sum() == 0
    assert draw.line_width(image) == 10 and draw.line_width(black()) == 1
    assert painted(drawn, draw.COLORS["middle"])[:, 450].sum() in (9, 10, 11)
    # A person of 80 pixels has lines of 2.
    small = np.array([(100.5, 200.5), (180.5, 200.5), NOWHERE])
    column = draw.draw_pose(image, small, SMALL)[:, 140].sum(axis=-1)
    assert 1.5 < column.sum() / (3 * 240) < 4  # antialiased
    np.testing.assert_array_equal(
        draw.draw_pose(image[:, ::-1], keypoints, SMALL), drawn
    )  # a view that is not contiguous


def test_truth_is_green_and_the_prediction_red():
    keypoints = np.array([(20.5, 10.5), (70.5, 10.5), (20.5, 20.5)])
    labeled = np.array([True, True, False])
    drawn = draw.draw_truth(black(), keypoints, keypoints + (0, 30), labeled, SMALL)
    assert is_near(drawn[10, 45], draw.TRUTH)
    assert is_near(drawn[40, 45], draw.PREDICTION)
    assert drawn[20, 20].sum() == 0 and is_near(drawn[50, 20], draw.PREDICTION)


def test_a_box_is_drawn_on_its_edges():
    drawn = draw.draw_box(black(), [10.5, 20.5, 40.5, 50.5], (9, 99, 199))
    assert is_near(drawn[20, 25], (9, 99, 199))
    assert is_near(drawn[35, 10], (9, 99, 199))
    assert drawn[35, 25].sum() == 0
    assert draw.draw_box(black(), [0, np.nan, 1, 1], WHITE).sum() == 0


def test_a_contact_sheet_places_every_image_in_its_cell():
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    sizes = [(30, 60), (300, 100), (50, 50)]
    images = [
        np.full((*s, 3), c, np.uint8) for s, c in zip(sizes, colours, strict=True)
    ]
    sheet = draw.contact_sheet(images, ["one", "two", "three " * 40], 2, cell=80)
    # Cells of 80 with gaps of 6 and captions of 22; the images keep their proportions.
    for i, (height, width) in enumerate([(40, 80), (80, 27), (80, 80)]):
        where = painted(sheet, colours[i])
        assert where.sum() == height * width
        rows, columns = np.nonzero(where)
        x, y = 6 + i % 2 * 86, 6 + i // 2 * 108
        assert columns.min() >= x and columns.max() < x + 80
        assert rows.min() >= y and rows.max() < y + 80
    captions = (sheet[90:108] < 100).all(axis=-1).any(axis=0)
    assert captions[6:86].any() and captions[92:172].any()
    with pytest.raises(ValueError, match="1 images and 2 captions"):
        draw.contact_sheet(images[:1], ["a", "b"], 2)


def test_a_row_of_flat_images_is_flat():
    """A third of a sheet of film frames was white."""
    images = [np.full((20, 80, 3), 9, np.uint8)] * 3 + [
        np.full((60, 80, 3), 9, np.uint8)
    ]
    sheet = draw.contact_sheet(images, [""] * 4, 2, cell=80)
    # Gaps of 6, captions of 22.
    assert sheet.shape == (6 + (20 + 22 + 6) + (60 + 22 + 6), 2 * 86 + 6, 3)
    where = painted(sheet, (9, 9, 9))
    assert where[6:26].sum() == 2 * 80 * 20
    assert where[54:114].sum() == 80 * 20 + 80 * 60


def test_resizing_says_by_how_much_points_move():
    image = black(100, 40)
    resized, factors = draw.resize_to(image, 250)
    assert resized.shape == (250, 100, 3)
    np.testing.assert_allclose(factors, [2.5, 2.5])


def test_curves_are_drawn_in_every_panel():
    thresholds = np.linspace(0, 0.5, 51)
    flat = plot.Curve("stage 1", np.full(51, 0.5), 0)
    baseline = plot.Curve("baseline", np.full(51, 0.2), 3, dashed=True)
    blue, red = (31, 119, 180), (214, 39, 40)  # matplotlib's first and fourth
    for panels in (
        [("all", [flat, baseline])],
        [(n, [flat, baseline]) for n in "abcde"],
    ):
        image = plot.plot_curves(thresholds, panels, "title", "across", "up")
        assert image.dtype == np.uint8 and image.ndim == 3
        # As long as the axes are wide, which is most of the panel; gaps when dashed.
        solid, dashed = painted(image, blue).sum(), painted(image, red).sum()
        assert solid > 200 * len(panels)
        assert 0.3 * solid < dashed < 0.9 * solid


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_legends_cover_no_curve(count, same, monkeypatch):
    """They were put where there seemed to be room, and hid what lay there."""
    figures, render = [], plot._rendered
    monkeypatch.setattr(plot, "_rendered", lambda f: (figures.append(f), render(f))[1])
    rising = np.linspace(0, 1, 51)
    panels = []
    for i in range(count):
        names = ["baseline", "stage 1", f"MODEC, Sapp and Taskar, {0 if same else i}"]
        curves = [
            plot.Curve(name, rising * (k + 1) / 3, k) for k, name in enumerate(names)
        ]
        panels.append((f"panel {i}", curves))
    image = plot.plot_curves(rising / 2, panels, "title", "", "")
    (figure,) = figures
    legends = figure.legends + [a.get_legend() for a in figure.axes if a.get_legend()]
    assert len(legends) == (1 if same or count == 1 else count)
    height, width = image.shape[:2]
    for legend in legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height
        for ax in figure.axes[:count]:
            assert not box.overlaps(ax.get_window_extent())
            assert not box.overlaps(ax.xaxis.get_tightbbox())


def test_single_places_are_dots_and_counts_an_axis_of_their_own():
    blue, orange = (31, 119, 180), (255, 127, 14)
    dot = plot.Curve("published", np.array([0.5]), 0, at=np.array([0.2]))
    shares = np.linspace(0, 0.5, 51)
    image = plot.plot_curves(shares, [("", [dot])], "title", "", "")
    # One in the panel and one in the legend, of 6 points at 100 dots an inch: 8 px.
    assert 2 * 30 < painted(image, blue).sum() < 2 * 120
    curves = [plot.Curve("one", np.array([0.7]), 1, at=np.array([1]))]
    image = plot.plot_curves(np.arange(1, 2), [("", curves)], "", "stages", "", None)
    assert painted(image, orange).any()


def test_bars_are_as_high_as_their_values():
    bars = [plot.Bars("a", [0.5, np.nan], 0), plot.Bars("b", [0.25, 0.5], 3, True)]
    image = plot.plot_bars(["one", "two"], bars, "title", "PCP")
    left = painted(image, (31, 119, 180))
    tall = left.sum(axis=0).max()  # half of the axis, which is most of 500 pixels
    assert 150 < tall < 250
    pale = np.round(0.45 * np.array([214, 39, 40]) + 0.55 * 255).astype(int)
    others = (np.abs(image.astype(int) - pale) <= 2).all(axis=-1).sum(axis=0)
    assert others.max() == pytest.approx(tall, abs=4)
    assert np.median(others[others > 50]) < tall


def test_an_image_is_written_whole_as_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    draw.write_image(tmp_path / "a.png", image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    read = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    np.testing.assert_array_equal(read, image)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"before")

    def fail(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        files.write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_what_a_kill_left_is_replaced_and_not_followed(tmp_path):
    """The temporary file has one name, at which a link of somebody else's may be."""
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / ".a.bin.partial").symlink_to(tmp_path / "other")
    files.write_bytes(tmp_path / "a.bin", b"new")
    assert (tmp_path / "other").read_bytes() == b"kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "other"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_name_at_the_edge_is_whole():
    """Right of a joint that is near the right edge it was cut off."""
    names = [
        draw.draw_names(black(), np.full([3, 2], (x, 30)), SMALL, [True, False, False])
        for x in (20, 85)
    ]
    first, last = (np.flatnonzero(name.any(axis=(0, 2))) for name in names)
    assert first[0] > 20 and last[-1] < 85
    np.testing.assert_array_equal(first - first[0], last - last[0])


def test_a_sheet_says_what_its_colours_mean():
    """Nobody could know that green is the label."""
    images = [np.full((50, 80, 3), 9, np.uint8)] * 2
    plain = draw.contact_sheet(images, ["a", "b"], 2, cell=160)
    sheet = draw.contact_sheet(images, ["a", "b"], 2, 160, draw.TRUTH_LEGEND)
    # A strip of 22 pixels more, in which both colours and words are.
    np.testing.assert_array_equal(sheet[22 + 6 :], plain[6:])
    strip = sheet[:26]
    assert painted(strip, draw.TRUTH).any() and painted(strip, draw.PREDICTION).any()
    assert (strip[:, 30:60] < 100).all(axis=-1).any()
    # What is too long for a narrow sheet is made smaller.
    long = {"word " * 30: (9, 200, 9)}
    narrow = draw.contact_sheet(images[:1], ["a"], 1, 80, long)
    assert narrow.shape[1] == 80 + 12
