import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread

from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.errors import UserError
from rrl_dist.report.gallery import Gallery, amplified, gallery, load_gallery
from rrl_dist.report.load import load_run
from rrl_dist.report.plots import robustness_curve


@pytest.fixture
def run(tmp_path, results, save):
    return load_run(save(tmp_path / "run", results("a", "b", "c", "d")))


def colours(path):
    """How many pixels have each colour, as [K, 3] in [0, 255] and [K]."""
    pixels = (imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    return np.unique(pixels, axis=0, return_counts=True)


def border(path):
    """The outermost pixels, where clipped text would show."""
    picture = imread(path)[..., :3]
    edges = picture[0], picture[-1], picture[:, 0], picture[:, -1]
    return np.concatenate([edge.reshape(-1) for edge in edges])


@pytest.mark.parametrize("arms", [1, 2, 4])
def test_curve_shows_each_arm_in_a_colour_of_its_own(run, tmp_path, arms):
    path = tmp_path / "curve.png"
    robustness_curve(replace(run, arms=run.arms[:arms]), path)
    found, counts = colours(path)
    kept = {tuple(c) for c, n in zip(found.tolist(), counts, strict=True) if n > 100}
    palette = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)]
    assert [c in kept for c in palette] == [i < arms for i in range(4)]
    assert (border(path) == 1).all()
    assert 10_000 < path.stat().st_size < 300_000


@pytest.mark.parametrize("value", [0.25, 0.5])
def test_curve_is_as_high_as_the_accuracy(run, tmp_path, value):
    def flat(arm, share):
        points = [
            replace(p, accuracy=Proportion(share, share, share, 9)) for p in arm.curve
        ]
        return replace(arm, curve=tuple(points))

    def height(share):
        path = tmp_path / "curve.png"
        robustness_curve(replace(run, arms=(flat(run.arms[0], share),)), path)
        pixels = (imread(path)[:, :800, :3] * 255).round()  # without the legend
        blue = (pixels == (0, 114, 178)).all(-1)
        return np.median(np.nonzero(blue)[0])

    bottom, top = height(0.0), height(1.0)
    assert bottom - top > 400
    assert height(value) == pytest.approx(bottom + value * (top - bottom), abs=2)


def test_curve_survives_awkward_names_and_a_single_point(run, tmp_path):
    first, second, *_ = run.arms
    odd = replace(
        run,
        data="$x$ " * 30,
        arms=(
            replace(first, name="_$hidden$" * 9),
            replace(second, curve=second.curve[:1]),
        ),
    )
    robustness_curve(odd, tmp_path / "curve.png")
    assert (border(tmp_path / "curve.png") == 1).all()


def test_curve_without_points_is_refused(run, tmp_path):
    bare = replace(run, arms=tuple(replace(arm, curve=()) for arm in run.arms))
    with pytest.raises(UserError, match="no curve"):
        robustness_curve(bare, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_pictures_are_the_same_bytes_whatever_the_users_settings(
    run, tmp_path, pictures
):
    source = {"a": pictures(tmp_path, "a")}
    robustness_curve(run, tmp_path / "curve-1.png")
    gallery(source, tmp_path / "gallery-1.png")
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 20}):
        robustness_curve(run, tmp_path / "curve-2.png")
        gallery(source, tmp_path / "gallery-2.png")
        assert matplotlib.rcParams["font.size"] == 30
    for kind in ("curve", "gallery"):
        first, second = ((tmp_path / f"{kind}-{i}.png").read_bytes() for i in (1, 2))
        assert first == second


def test_drawing_does_not_load_pyplot():
    code = (
        "import sys, pathlib, tempfile; from rrl_dist.report.figures import drawing\n"
        "assert 'matplotlib' not in sys.modules\n"
        "out = pathlib.Path(tempfile.mkdtemp(), 'x.png')\n"
        "with drawing(out, width=1, height=1): pass\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("n", "columns"), [(1, 4), (6, 6), (10, 8)])
def test_gallery_has_up_to_eight_columns(tmp_path, pictures, n, columns):
    path = tmp_path / "gallery.png"
    gallery({"a": pictures(tmp_path, "a", n)}, path)
    height, width = imread(path).shape[:2]
    assert width == pytest.approx(150 * (1.55 + columns * 1.27 + 0.2), abs=2)
    gallery({arm: pictures(tmp_path, arm, n) for arm in "ab"}, path)
    assert imread(path).shape[0] > 1.8 * height
    assert (border(path) == 1).all()
    assert path.stat().st_size < 500_000


def test_gallery_shows_the_images_pixels(tmp_path, pictures):
    colour = np.zeros((1, 3, 8, 8), np.float32)
    colour[:, 0], colour[:, 1] = 1.0, 0.4
    file = pictures(tmp_path, "a", 1, images=colour, attacked=colour)
    gallery({"a": file}, tmp_path / "gallery.png")
    found, counts = colours(tmp_path / "gallery.png")
    shown = dict(zip(map(tuple, found.tolist()), counts, strict=True))
    cell = (1.15 * 150) ** 2
    assert shown[255, 102, 0] == pytest.approx(2 * cell, rel=0.05)
    # The perturbation is zero: grey.
    assert max(shown.get((g, g, g), 0) for g in (127, 128)) > 0.9 * cell


def test_gallery_shortens_long_names(tmp_path, pictures):
    classes = np.array(["a class of a very long name"] * 3)
    source = {"arm " * 50: pictures(tmp_path, "a", classes=classes)}
    gallery(source, tmp_path / "gallery.png")
    assert (border(tmp_path / "gallery.png") == 1).all()


@given(
    hnp.arrays(np.float32, (1, 3, 2, 2), elements=st.floats(0, 1, width=32)),
    st.floats(1e-3, 1),
    st.integers(0, 9),
)
def test_perturbations_of_size_eps_fill_the_range_around_grey(images, eps, seed):
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], images.shape)
    zero = np.zeros(1, np.int64)
    one = Gallery(images, images + eps * signs, zero, zero, zero, ("x",), eps)
    shown, factor = amplified(one)
    np.testing.assert_allclose(shown, 0.5 + 0.5 * signs, atol=1e-3)
    assert factor == pytest.approx(1 / (2 * eps), rel=1e-3)
    still, _ = amplified(replace(one, attacked=images))
    assert (still == 0.5).all()


def test_small_perturbations_of_a_wide_ball_are_made_visible():
    zero = np.zeros(1, np.int64)
    images = np.full((1, 3, 2, 2), 0.5, np.float32)
    attacked = images.copy()
    attacked[0, 0, 0, 0] += 0.1
    shown, factor = amplified(Gallery(images, attacked, zero, zero, zero, ("x",), 12.0))
    assert factor == pytest.approx(5)
    assert shown.max() == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": None},
        {"attacked": np.zeros((10, 3, 4, 4), np.float32)},
        {"predicted_clean": np.zeros(3, np.int64)},
        {"classes": np.array(["cat", None], dtype=object)},
    ],
)
def test_an_odd_gallery_is_refused(tmp_path, pictures, changes):
    with pytest.raises(UserError, match="evaluate again"):
        load_gallery(pictures(tmp_path, "a", **changes))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"plain"])
def test_a_damaged_gallery_is_refused(tmp_path, content):
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no gallery"):
        load_gallery(file)
