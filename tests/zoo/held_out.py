"""Networks that no rule was written for: they stand for what users will bring."""

from tests.zoo.networks import ZooNetwork
from tests.zoo.separators import dual_path, grid, spectral, time_domain

HELD_OUT: tuple[ZooNetwork, ...] = (
    ZooNetwork("conv-tasnet-overlap-add", time_domain.ConvTasNet, ((2, 400),)),
    ZooNetwork("conv-tasnet-causal", lambda: time_domain.ConvTasNet(causal=True), ((2, 400),)),
    ZooNetwork("blstm-tasnet", time_domain.LSTMTasNet, ((2, 400),)),
    ZooNetwork("sudormrf-causal", time_domain.CausalSuDORMRF, ((2, 1, 1000),)),
    ZooNetwork("wave-u-net", time_domain.WaveUNet, ((2, 1, 512),)),
    ZooNetwork("dptnet-improved-transformer", dual_path.DPTNet, ((2, 300),)),
    ZooNetwork("skim-causal", dual_path.SkiM, ((2, 400),)),
    ZooNetwork("mossformer-flash", dual_path.MossFormer, ((2, 400),)),
    ZooNetwork("frcrn", spectral.FRCRN, ((2, 512),)),
    ZooNetwork("spleeter", spectral.Spleeter, ((2, 512),)),
    ZooNetwork("gtcrn", spectral.GTCRN, ((2, 33, 10, 2),)),
    ZooNetwork("tf-gridnet", grid.TFGridNet, ((2, 256),)),
    ZooNetwork("bsrnn", grid.BSRNN, ((2, 256),)),
    ZooNetwork("cmgan", grid.CMGAN, ((2, 2, 10, 33),)),
)
