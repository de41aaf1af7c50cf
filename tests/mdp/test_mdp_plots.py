"""Pictures: whole or not at all, right contents where contents can be counted."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likely.cli.mdp.answers import draw
from likely.errors import InvalidData, InvalidSetting
from likely.files import figures
from likely.mdp import World, solve, worlds
from likely.mdp.draw import pictures, plots
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.policies import greedy_pairs, optimality_sweeps
from likely.mdp.model.world import layout_of
from likely.mdp.worlds import classic


def lake() -> tuple[World, GridLayout, list[np.ndarray]]:
    world = worlds.build("frozen-lake")
    assert world.layout is not None
    return world, world.layout, list(islice(optimality_sweeps(world.mdp), 6))


def test_layout_puts_values_in_their_cells() -> None:
    layout = GridLayout.of([[0, -1], [2, 1]], ((0, 1), None), symbols=["S#", " G"])
    grid = layout.on_grid([5.0, 6.0, 7.0])
    assert grid[0, 0] == 5.0
    assert np.isnan(grid[0, 1])
    assert grid[1].tolist() == [7.0, 6.0]
    assert [layout.arrow(a) for a in (0, 1, 2)] == ["→", "", ""]
    with pytest.raises(InvalidData, match="2 strings of 2 characters"):
        GridLayout.of([[0, 1], [2, 3]], symbols=["S"])
    with pytest.raises(InvalidData, match="rectangle"):
        GridLayout.of([0, 1])


def test_every_picture_is_a_picture(tmp_path: Path) -> None:
    world, _, values = lake()
    rows = [(f"k = {k}", values[k]) for k in (0, 1, 5)]
    x = np.arange(1.0, 9.0)
    lines = [plots.Convergence("a", x, 0.1 * x, 0.5**x), plots.Convergence("b", x, x, 0.0 * x)]
    written = [
        plots.heat_map(tmp_path / "a.png", world, values[5], "lake"),
        plots.sweeps_figure(tmp_path / "b.png", world, rows),
        plots.convergence(tmp_path / "c.png", lines),
        plots.line_plot(tmp_path / "d.png", [0, 1, 2], [1, np.nan, 2], ("s", "value", "stake")),
        pictures.policy_contours(
            tmp_path / "e.png", GridLayout.of(np.arange(16).reshape(4, 4)),
            [("one", np.arange(16) % 3 - 1)], np.arange(16.0), "cars",
        ),
    ]  # fmt: skip
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            shades = np.asarray(picture.convert("L"))
        assert shades.std() > 5.0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
        "e.png",
    ]


def test_an_animation_has_its_frames_and_a_last_pause(tmp_path: Path) -> None:
    world, _, values = lake()
    path = pictures.animate(
        tmp_path / "a.gif", world, values, [f"sweep {k}" for k in range(6)], 5.0
    )
    with Image.open(path) as picture:
        assert picture.n_frames == 6
        durations = []
        for frame in range(6):
            picture.seek(frame)
            durations.append(picture.info["duration"])
    assert durations == [200] * 5 + [2000]


def test_arrows_are_drawn_for_every_greedy_action() -> None:
    world, layout, values = lake()
    greedy = greedy_pairs(world.mdp, values[0])
    axes = figures.new_figure(3, 3).add_subplot()
    plots.draw_arrows(axes, world.mdp, layout, greedy)
    assert greedy.sum() == axes.collections[0].N


def test_numbers_fit_in_a_cell() -> None:
    found = [plots.short_number(v) for v in (0.0, -14.0, -13.9999999999, 0.5420259, -2.4375, 22.03)]
    assert found == ["0", "-14", "-14", "0.542", "-2.44", "22.0"]
    assert plots.short_number(1e-9) == "1e-09"
    assert plots.short_number(-1234567.0) == "-1e+06"
    assert plots.short_number(float("-inf")) == "-∞"


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("the disk is on fire")

    target = tmp_path / "a.png"
    target.write_text("before")
    with pytest.raises(RuntimeError):
        figures.write_atomically(target, broken)
    assert target.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_bad_targets_are_refused(tmp_path: Path) -> None:
    world, _, values = lake()
    with pytest.raises(InvalidSetting, match=r"\.png, \.pdf or \.svg"):
        plots.heat_map(tmp_path / "a.jpg", world, values[0])
    with pytest.raises(InvalidSetting, match="does not exist"):
        plots.heat_map(tmp_path / "no" / "a.png", world, values[0])
    with pytest.raises(InvalidSetting, match=r"is a \.gif"):
        pictures.animate(tmp_path / "a.png", world, values, ["x"] * 6)
    with pytest.raises(InvalidSetting, match="a label for each"):
        pictures.animate(tmp_path / "a.gif", world, values, ["x"])


def test_jacks_layout_counts_cars() -> None:
    mdp = classic.jacks_car_rental(5)
    layout = layout_of(mdp)
    assert layout.shape == (6, 6)
    assert mdp.state_names is not None
    assert mdp.state_names[layout.state[4, 2]] == "4+2 cars"


def test_a_single_arrow_is_centred_and_ties_start_from_the_middle() -> None:
    world = worlds.build("seven-states")
    assert world.layout is not None
    axes = figures.new_figure(3, 3).add_subplot()
    marked = np.zeros(14, dtype=bool)
    marked[[1, 4, 5]] = True  # right in the first state, both ways in the third
    plots.draw_arrows(axes, world.mdp, world.layout, marked)
    arrows = axes.collections[0]
    tips = np.asarray(arrows.XY) + np.stack([arrows.U, -arrows.V * 0], axis=1)
    assert ((arrows.XY[0] + tips[0]) / 2).tolist() == pytest.approx([0.0, 0.0])
    assert arrows.XY[1:].tolist() == [[2.0, 0.0], [2.0, 0.0]]
    assert np.sign(arrows.U).tolist() == [1.0, -1.0, 1.0]


def test_cells_that_end_the_episode_show_their_reward() -> None:
    maze = worlds.build("maze-4x3")
    layout = layout_of(maze)
    axes = figures.new_figure(4, 3).add_subplot()
    image = plots.draw_cells(axes, layout, np.arange(11.0))
    assert {"+1", "-1"} <= {text.get_text() for text in axes.texts}
    assert np.ma.getmaskarray(image.get_array())[:2, 3].all(), "their value of 0 is not a colour"
    with pytest.raises(InvalidSetting, match="has no layout to draw on"):
        layout_of(worlds.build("garnet", size=[3, 1, 1]))
    with pytest.raises(InvalidData, match=r"a state 11; states are 0\.\.10, walls"):
        maze.mdp.with_layout(GridLayout.of([np.arange(12)]))


def test_a_wide_grid_is_drawn_in_two_rows_and_a_solution_is_a_value(tmp_path: Path) -> None:
    path = plots.heat_map(tmp_path / "a.png", worlds.build("cliff"), np.zeros(38))
    with Image.open(path) as picture:
        assert picture.height > 0.6 * picture.width
    lake = worlds.build("frozen-lake")
    best = solve(lake)
    plots.heat_map(tmp_path / "b.png", lake.mdp, best)
    plots.heat_map(tmp_path / "c.png", lake, best.shown())
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_the_colour_bar_of_actions_stands_with_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, *_: kept.append(figure))
    layout = GridLayout.of(np.arange(16).reshape(4, 4))
    policies = [("best action", np.arange(16) % 3 - 1)]
    pictures.policy_contours(tmp_path / "a.png", layout, policies, np.arange(16.0), "move")
    kept[0].canvas.draw()
    policy, value, bar = (axes.get_position().x0 for axes in kept[0].axes)
    assert policy < bar < value
    assert kept[0].axes[2].get_ylabel() == "move"


def test_states_and_actions_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, *_: kept.append(figure))
    forest = worlds.build("forest")
    draw(str(tmp_path / "a.png"), forest, np.arange(3.0), "forest")
    lower = kept[0].axes[1]
    assert [label.get_text() for label in lower.get_xticklabels()] == ["age 0", "age 1", "age 2"]
    assert [label.get_text() for label in lower.get_yticklabels()] == ["wait", "cut"]
    draw(str(tmp_path / "b.png"), worlds.build("inventory"), np.arange(4.0), "inventory")
    assert kept[1].axes[1].get_ylabel() == "order"
