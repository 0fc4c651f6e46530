from contextlib import suppress

from torch import nn

from jemtrack.shared.evaluation_mode import evaluation_mode


def test_each_module_gets_its_own_mode_back_whatever_happens():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1))
    network[1].eval()

    with suppress(ArithmeticError), evaluation_mode(network):
        within = [module.training for module in network.modules()]
        raise ArithmeticError

    assert within == [False, False, False]
    assert [module.training for module in network.modules()] == [True, True, False]
