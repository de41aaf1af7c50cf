"""Training throughput and nats at equal time beside pythae, on the same VAE and the same images.

    pip install pythae==0.1.2        # or --no-deps --target FOLDER, with FOLDER on PYTHONPATH
    LIKELY_DATA=... OMP_NUM_THREADS=1 python bench/pythae_throughput.py
    ... python bench/pythae_throughput.py --rounds 40 --updates 50

The network is a dense VAE, 784 - 500 - 500 - 50 latents, as Likely builds it (SiLU layers); pythae
gets the same layers, copies of the same weights, as its own encoder and decoder, Bernoulli
likelihood, Adam at the same rate and batches of the same size. Each library trains with its own
loop: `likely.fit` with its checks and records, averaged weights and clipping off, which pythae does
not have; pythae with `BaseTrainer.train_step`, its loop over an epoch, as `TrainingPipeline` runs
it. They take turns in one process, a short round each, so that what else the machine does hits
both; the figures are medians of processor time, the first rounds left out. After as much processor
time each, both are measured alike: the ELBO of 2,000 validation images with one latent each.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import tempfile
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import write_result
from likely import data
from likely.density import DiagonalGaussian
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.noise import Noise
from likely.settings import FitSettings, to_json
from likely.training.loop import fit
from likely.training.run import Run

SIZES = VAESettings(latent=50, network="dense", hidden=500, layers=2)
RATE = 1e-3


def pythae_trainer(model: VAE, images: np.ndarray[Any, Any], batch: int, folder: str) -> Any:
    """A trainer of pythae with copies of the layers of a model."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self, trunk: nn.Module) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor) -> Any:
            mean, log_scale = self.trunk(2 * x.flatten(1) - 1).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self, trunk: nn.Module, bias: Tensor) -> None:
            super().__init__()
            self.trunk, self.bias = trunk, nn.Parameter(bias.flatten())

        def forward(self, z: Tensor) -> Any:
            pixels = (self.trunk(z) + self.bias).sigmoid()  # pythae takes probabilities
            return ModelOutput(reconstruction=pixels.reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=SIZES.latent, reconstruction_loss="bce")
    network = PythaeVAE(
        config,
        encoder=Encoder(copy.deepcopy(model.encoder)),
        decoder=Decoder(copy.deepcopy(model.decoder), model.output_bias.detach().clone()),
    )
    training = BaseTrainerConfig(
        output_dir=folder, num_epochs=1, learning_rate=RATE, per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch, optimizer_cls="Adam", no_cuda=True,
    )  # fmt: skip
    values = torch.from_numpy(images.astype(np.float32))
    trainer = BaseTrainer(network, BaseDataset(values, torch.zeros(len(values))), None, training)
    trainer.prepare_training()
    return trainer


class Pythae:
    """Rounds of so many updates, by the loop of pythae."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.loader = trainer.train_loader

    def updates(self, count: int) -> None:
        """One epoch of `train_step` over so many batches, without its files."""

        class Part:
            dataset = self.loader.dataset

            def __init__(self, loader: Any) -> None:
                self.loader = loader

            def __iter__(self) -> Any:
                return itertools.islice(iter(self.loader), count)

            def __len__(self) -> int:
                return count

        self.trainer.train_loader = Part(self.loader)
        self.trainer.train_step(1)


def elbo_of(encode: Any, decode: Any, images: Tensor) -> float:
    """Mean ELBO in nats, one latent each, by one formula for both."""
    with torch.no_grad():
        mean, log_scale = encode(images)
        q = DiagonalGaussian(mean, log_scale)
        logits = decode(q.sample(Noise("elbo").normal(*mean.shape)))
        x = images.flatten(1)
        given_z = (x * logits - nn.functional.softplus(logits)).sum(1)
        return float((given_z - q.kl_to_standard().sum(1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="of each library")
    parser.add_argument("--updates", type=int, default=25, help="in a round")
    parser.add_argument("--batch", type=int, default=100, help="images in an update")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    train, _ = data.load("mnist", binarize="static")
    images = np.asarray(train.x)
    model = VAE(train.spec, SIZES)
    model.start_at(train)
    folder = tempfile.mkdtemp()
    peer = Pythae(pythae_trainer(model, images, options.batch, folder))
    held_out = train.validation
    assert held_out is not None
    check = torch.from_numpy(held_out.batch(slice(0, 2000)).x.astype(np.float32))
    ours: list[float] = []
    theirs: list[float] = []
    clock = [time.process_time()]

    def between(run: Run, record: dict[str, float]) -> None:
        ours.append(time.process_time() - clock[0])
        before = time.process_time()
        peer.updates(options.updates)
        theirs.append(time.process_time() - before)
        # Equal time: whoever is behind goes on, here the peer; Likely's own turn comes next.
        while sum(theirs) + median(theirs) < sum(ours):
            before = time.process_time()
            peer.updates(options.updates)
            theirs.append(time.process_time() - before)
        clock[0] = time.process_time()

    settings = FitSettings(
        steps=options.rounds * options.updates, batch_size=options.batch, learning_rate=RATE,
        schedule="constant", warmup=0, clip=0.0, ema=0.0, log_every=options.updates,
        validate_every=10**9, validation_examples=1,
    )  # fmt: skip
    clock[0] = time.process_time()
    run = fit(model, train, settings=settings, progress=between)
    while sum(theirs) + median(theirs) < sum(ours):
        before = time.process_time()
        peer.updates(options.updates)
        theirs.append(time.process_time() - before)
    fitted = run.model
    assert isinstance(fitted, VAE)
    nats = {
        "likely": elbo_of(
            lambda x: fitted.encoder(2 * x.flatten(1) - 1).chunk(2, 1),
            lambda z: fitted.decoder(z) + fitted.output_bias.flatten(),
            check,
        ),
        "pythae": elbo_of(
            lambda x: peer.trainer.model.encoder.trunk(2 * x.flatten(1) - 1).chunk(2, 1),
            lambda z: peer.trainer.model.decoder.trunk(z) + peer.trainer.model.decoder.bias,
            check,
        ),
    }
    a, b = median(ours[3:]), median(theirs[3:])
    count = options.batch * options.updates
    figures = {
        "throughput/vae/over-pythae": b / a,
        "throughput/vae/likely-images-per-second": count / a,
        "throughput/vae/pythae-images-per-second": count / b,
        "throughput/vae/likely-negative-elbo-nats-at-equal-time": -nats["likely"],
        "throughput/vae/pythae-negative-elbo-nats-at-equal-time": -nats["pythae"],
    }
    about = {
        "seconds": {"likely": sum(ours), "pythae": sum(theirs)},
        "updates": {"likely": settings.steps, "pythae": len(theirs) * options.updates},
        "rounds": {"likely": ours, "pythae": theirs},
        "threads": torch.get_num_threads(),
        "weights": sum(p.numel() for p in fitted.parameters()),
    }
    settings_of = {"network": to_json(SIZES), "fit": to_json(settings), **vars(options)}
    write_result("throughput-vae", figures, settings_of, about)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
