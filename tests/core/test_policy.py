"""Nothing is read that is not declared."""

import pytest

from posttrain.core import Models


def test_declared_networks_and_state() -> None:
    models = Models({"beta": 0.5}, policy="p", reference="r")
    assert (models.policy, models.reference, models.state) == ("p", "r", {"beta": 0.5})


def test_undeclared_network_is_an_error_that_names_the_declared() -> None:
    with pytest.raises(AttributeError, match="network 'reference' is not among the declared ones: policy, value"):
        _ = Models(policy="p", value="v").reference
