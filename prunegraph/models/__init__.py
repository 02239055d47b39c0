"""Reference separators, written from their published descriptions; published checkpoints load into them as they are."""

from prunegraph.models.afrcnn import AFRCNN
from prunegraph.models.sudormrf import SuDoRMRF
from prunegraph.models.tdanet import TDANet

__all__ = ["AFRCNN", "SuDoRMRF", "TDANet"]
