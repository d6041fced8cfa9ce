"""Metaworld's fifty tasks with their scripted experts, for `posttrain data make metaworld_experts:reach-v3`.

Each shows its goal and draws another in every episode, of 500 steps that pay up to 10 each.
"""

import gymnasium as gym
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP


def task(name, **options):
    env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](**options)
    env.observation_space = env.sawyer_observation_space  # the former says that goals are 0
    env._freeze_rand_vec = False  # each episode draws its own goal, and not the first one's again
    return env


class Expert:
    """The one that Metaworld wrote for the task."""

    def __init__(self, env, obs, info):
        self.policy = ENV_POLICY_MAP[env.spec.id]()

    def __call__(self, obs, info):
        return self.policy.get_action(obs)


for name in ENV_POLICY_MAP:
    gym.register(name, "metaworld_experts:task", max_episode_steps=500, kwargs={"name": name})
