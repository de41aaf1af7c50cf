"""Learned worlds: from logged transitions to a plan with three separate errors.

    log = world.collect("cartpole", n=50, seed=0)      # or Trajectories.load("log.npz")
    model = world.fit(log)                             # p(s', r, terminated | s, a)
    plan = world.plan(model)                           # on a grid, solved, certified
    world.act("cartpole", plan, episodes=20)           # in the true environment
    world.errors(plan, "cartpole")                     # planning, discretisation, model

The bridge between both halves of the package: a density of one step of a process, and a Markov
decision process that is made of it. Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.world.abstractions import TablePlan as TablePlan
    from likely.world.abstractions import clone as clone
    from likely.world.abstractions import codes_plan as codes_plan
    from likely.world.abstractions import kernel_plan as kernel_plan
    from likely.world.abstractions import neighbours_plan as neighbours_plan
    from likely.world.grid import Grid as Grid
    from likely.world.grid import Points as Points
    from likely.world.grid import to_mdp as to_mdp
    from likely.world.learn import fit as fit
    from likely.world.learn import held_out_nats as held_out_nats
    from likely.world.memory import Memory as Memory
    from likely.world.memory import fit_memory as fit_memory
    from likely.world.model import Branches as Branches
    from likely.world.model import KnownModel as KnownModel
    from likely.world.model import Step as Step
    from likely.world.model import TransitionModel as TransitionModel
    from likely.world.pixels import Codes as Codes
    from likely.world.pixels import PixelPole as PixelPole
    from likely.world.pixels import Pixels as Pixels
    from likely.world.pixels import fit_codes as fit_codes
    from likely.world.planning import Errors as Errors
    from likely.world.planning import Plan as Plan
    from likely.world.planning import errors as errors
    from likely.world.planning import plan as plan
    from likely.world.planning import validate as validate
    from likely.world.play import Played as Played
    from likely.world.play import act as act
    from likely.world.play import collect as collect
    from likely.world.play import simulate as simulate
    from likely.world.saved import load_world as load_world
    from likely.world.saved import save_world as save_world
    from likely.world.tasks import TASKS as TASKS
    from likely.world.tasks import Task as Task
    from likely.world.tasks import task_of as task_of
    from likely.world.trajectories import Trajectories as Trajectories

_HOME = {
    name: home
    for home, names in {
        "learn": ("fit", "held_out_nats"),
        "abstractions": ("TablePlan", "clone", "codes_plan", "kernel_plan", "neighbours_plan"),
        "grid": ("Grid", "Points", "to_mdp"),
        "model": ("Branches", "KnownModel", "Step", "TransitionModel"),
        "memory": ("Memory", "fit_memory"),
        "pixels": ("Codes", "PixelPole", "Pixels", "fit_codes"),
        "planning": ("Errors", "Plan", "errors", "plan", "validate"),
        "play": ("Played", "act", "collect", "simulate"),
        "saved": ("load_world", "save_world"),
        "tasks": ("TASKS", "Task", "task_of"),
        "trajectories": ("Trajectories",),
    }.items()
    for name in names
}
__getattr__, __dir__, __all__ = lazy(__name__, _HOME)
