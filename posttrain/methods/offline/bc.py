"""BC, behaviour cloning: make what was done likely.

    L_π = −mean log π(a | s)

It learns nothing of rewards, so it is as good as the data's average; what an offline method is worth shows against it.

Deviations: the squared error that is often taken is this loss of a Gaussian whose deviation is held fixed; here the
deviation is learnt too.
"""

from dataclasses import dataclass

from posttrain.core import Loss, Method, Models, Paper, Transitions, by_kind


@dataclass(frozen=True, kw_only=True)
class BC(Method[Transitions]):
    paper = Paper("https://doi.org/10.1162/neco.1991.3.1.88", "Pomerleau, 1991")
    learns_from = "transitions"
    defaults = by_kind(control={
        "source": "dataset", "width": 256, "activation": "relu", "max_grad_norm": 1e6, "rounds": 1000,
        "lr_schedule": "constant"})

    def loss(self, models: Models, batch: Transitions) -> Loss:
        logp = models.policy.log_prob(batch)[:, 0]
        return Loss(policy=batch.mean(-logp))
