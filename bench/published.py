"""What papers print for statically binarised MNIST, to the digit, and how their models differ."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed figure.

    Attributes:
        nats: as printed, in words (digits are not rounded again).
        source: paper and table.
        link: of the paper.
        theirs: the paper's model.
        ours: what is different here.
    """

    nats: str
    source: str
    link: str
    theirs: str
    ours: str


PIXELRNN = (
    "van den Oord, Kalchbrenner, Kavukcuoglu 2016, table 4",
    "https://arxiv.org/abs/1601.06759",
)
MADE = ("Germain, Gregor, Murray, Larochelle 2015, table 6", "https://arxiv.org/abs/1502.03509")
NADE = ("Larochelle, Murray 2011, table 2", "https://proceedings.mlr.press/v15/larochelle11a.html")
IWAE = ("Burda, Grosse, Salakhutdinov 2016, app. D", "https://arxiv.org/abs/1509.00519")
LEARNED_PRIOR = ("Xu, Chen, Lai, Pan, Zhang, Yang 2019", "https://arxiv.org/abs/1905.13452")
VLAE = ("Chen et al. 2017, table 1", "https://arxiv.org/abs/1611.02731")
TWO_LAYERS = "two layers of 8,000 units, 32 masks (one layer and one mask: 88.40)"

PUBLISHED = {
    "fvsbn": Published(
        "97.45", *NADE, "no prior", "a Gaussian prior by offset and distance (maximum a posteriori)"
    ),
    "fvsbn-flat": Published("97.45", *NADE, "no prior", "weight decay of 2e-5"),
    "nade": Published(
        "88.33",
        *PIXELRNN,
        "500 units; cited there, the first paper prints 88.86",
        "500 units, too; the optimiser and the averaged weights",
    ),
    "made": Published(
        "86.64", *MADE, TWO_LAYERS,
        "one layer of 7,840 units, one mask, a Gaussian prior by offset and distance",
    ),
    "made-flat": Published("86.64", *MADE, TWO_LAYERS, "one layer of 8,000 units, four masks"),
    "made-small": Published(
        "86.64", *MADE, TWO_LAYERS, "one layer of 400 units, one mask: small enough to be kept"
    ),
    "pixelcnn": Published(
        "81.30", *PIXELRNN, "number of layers and width not given",
        "12 blocks of 48 channels, dilated kernels",
    ),
    "row-lstm": Published(
        "80.54", *PIXELRNN, "kernels of 3 and 7; number of layers and width not given",
        "7 layers of 32; kernels of 5 and 13, dropout",
    ),
    "row-lstm-narrow": Published(
        "80.54", *PIXELRNN, "kernels of 3 and 7; number of layers and width not given",
        "7 layers of 32, kernels of 3 and 7",
    ),
    "vae-flow-prior": Published(
        "80.09", *LEARNED_PRIOR, "ConvVAE with a RealNVP prior (ResnetVAE, 50 couplings: 79.84)",
        "16 couplings of 256 units; a smaller trunk",
    ),
    "vae-dense": Published("88.71", *IWAE, "200 units twice, 50 latents", "SiLU for tanh; Muon"),
    "iwae-50": Published("87.10", *IWAE, "200 units twice, 50 latents", "SiLU for tanh; Muon"),
    "pixel-vae": Published(
        "79.03", *VLAE, "ResNets, six masked layers of 12 filters, an autoregressive flow as prior",
        "a RealNVP prior; a masked 7 x 7 layer and two blocks of 12 filters",
    ),
    "diagonal-bilstm": Published(
        "79.20", *PIXELRNN, "7 layers of 16 (one layer of 32: 80.75)",
        "7 layers of 32; the first layer's sweep from the right reads the image, too",
    ),
}  # fmt: skip
NONE = (
    "The papers of the Gated PixelCNN, PixelCNN++ and PixelSNAIL print no figure for this file, "
    "those of the VAE none for the network of `vae`."
)
