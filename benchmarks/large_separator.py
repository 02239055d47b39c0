"""A separator of any size: convolutions, recurrence within chunks and attention across them, on one residual stream."""

from torch import Tensor, nn

STRIDE = 8


class LargeSeparator(nn.Module):
    """Masks a learned basis, as Conv-TasNet does; its blocks go both paths through chunks of frames.

    Args:
        blocks: how many blocks follow each other.
        width: channels of the residual stream; a block has about 40 times its square parameters.
        chunk: frames in each chunk.
        speakers: how many waveforms come out.
    """

    def __init__(self, *, blocks: int, width: int, chunk: int = 4, speakers: int = 2) -> None:
        super().__init__()
        self.width, self.chunk, self.speakers = width, chunk, speakers
        self.encoder = nn.Conv1d(1, width, 2 * STRIDE, STRIDE, padding=STRIDE // 2, bias=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.mask = nn.Conv1d(width, speakers * width, 1)
        self.decoder = nn.ConvTranspose1d(width, 1, 2 * STRIDE, STRIDE, padding=STRIDE // 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Waveforms of shape ``(batch, speakers, samples)`` from mixtures of shape ``(batch, 1, samples)``."""
        basis = self.encoder(mixture)
        batch, _, frames = basis.shape
        stream = basis.view(batch, self.width, frames // self.chunk, self.chunk)
        for block in self.blocks:
            stream = block(stream)
        masks = self.mask(stream.reshape(batch, self.width, frames)).view(batch, self.speakers, self.width, frames)
        sources = masks.sigmoid() * basis.unsqueeze(1)
        return self.decoder(sources.reshape(batch * self.speakers, self.width, frames)).view(batch, self.speakers, -1)


class Block(nn.Module):
    """Convolution, recurrence within chunks, attention across chunks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1),
            nn.PReLU(),
            nn.GroupNorm(1, 4 * width),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
            nn.PReLU(),
            nn.Conv2d(4 * width, width, 1),
        )
        self.recurrence = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.TransformerEncoderLayer(width, width // 64, 4 * width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape ``(batch, width, chunks, chunk)``."""
        batch, width, chunks, chunk = x.shape
        x = x + self.convolution(x)
        within = x.permute(0, 2, 3, 1).reshape(batch * chunks, chunk, width)
        within = self.norm(within + self.projection(self.recurrence(within)[0]))
        across = within.view(batch, chunks, chunk, width).transpose(1, 2).reshape(batch * chunk, chunks, width)
        return self.attention(across).view(batch, chunk, chunks, width).permute(0, 3, 2, 1)
