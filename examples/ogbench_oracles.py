"""OGBench's oracles on its tasks of one goal: `--policy ogbench_oracles:Walk` in a maze, `Place` for a cube.

    posttrain data make ogbench_oracles:pointmaze-medium-singletask-v0 --kind scripted --policy ogbench_oracles:Walk …
    posttrain data make ogbench_oracles:cube-single-singletask-v0 --kind scripted --policy ogbench_oracles:Place …
"""

import numpy as np
import ogbench  # noqa: F401  # registers its tasks
from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle


class Walk:
    """To the next cell of the shortest way to the goal, with the noise of OGBench's own sets."""

    def __init__(self, env, obs, info):
        self.maze = env.unwrapped

    def __call__(self, obs, info):
        here = self.maze.get_xy()
        step = self.maze.get_oracle_subgoal(here, self.maze.cur_goal_xy)[0] - here
        return step / (np.linalg.norm(step) + 1e-6) + np.random.normal(0, 0.2, 2)


class Place:
    """Plans how the cube gets to its goal, and anew from where a plan left it."""

    def __init__(self, env, obs, info):
        self.oracle = CubePlanOracle(env=env)
        self.goal = {"privileged/target_block": 0, "privileged/target_block_yaw": np.zeros(1),
                     "privileged/target_block_pos": env.unwrapped.cur_task_info["goal_xyzs"][0]}
        self.oracle.reset(obs, info | self.goal)

    def __call__(self, obs, info):
        if self.oracle.done:
            self.oracle.reset(obs, info | self.goal)
        return self.oracle.select_action(obs, info)
