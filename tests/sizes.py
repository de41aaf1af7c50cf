"""Sizes of models that keep the tests quick; a model that is not here is tested at its preset."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "gated-pixelcnn": {"channels": 12, "layers": 3, "kernel": 3, "first_kernel": 3,
                       "head_channels": 18, "components": 2, "dropout": 0.1},
    "gated-pixelcnn-ensemble": {"channels": 12, "layers": 3, "first_kernel": 3, "head_channels": 18,
                                "components": 2, "corners": 2},
    "gated-pixelcnn-orders": {"channels": 12, "layers": 3, "first_kernel": 3, "head_channels": 18,
                              "components": 2, "dropout": 0.1},
    "fvsbn": {"components": 2},
    "nade": {"hidden": 8, "components": 2},
    "deep-nade": {"hidden": 8, "components": 2},
    "eonade": {"hidden": 8, "components": 2, "orders": 3},
    "made-ensemble": {"hidden": 20, "masks": 2, "components": 2, "orders": 2},
    "made": {"hidden": 20, "masks": 2, "components": 2, "dropout": 0.1, "prior": "none"},
    "pixelcnn": {"channels": 6, "layers": 2, "first_kernel": 3, "head_channels": 12,
                 "components": 2, "dropout": 0.1},
    "attention": {"channels": 12, "blocks": 1, "convolutions": 2, "first_kernel": 3, "heads": 2,
                  "head_size": 4, "head_channels": 18, "components": 2, "dropout": 0.1},
    "row-lstm": {"hidden": 6, "layers": 2, "first_kernel": 3, "head_channels": 12,
                 "components": 2},
    "diagonal-bilstm": {"hidden": 6, "layers": 2, "first_kernel": 3, "head_channels": 12,
                        "components": 2},
    "diagonal-bilstm-ensemble": {"hidden": 6, "layers": 2, "first_kernel": 3, "head_channels": 12,
                                 "components": 2, "corners": 2},
    "pixelcnn-pp": {"channels": 6, "blocks": 1, "scales": 2, "components": 2, "dropout": 0.1},
    "multiscale-pixelcnn": {"channels": 12, "layers": 2, "small_layers": 2, "first_kernel": 3,
                            "map_channels": 4, "head_channels": 12, "components": 2,
                            "dropout": 0.1},
    "parallel-multiscale": {"channels": 8, "blocks": 1, "components": 2, "dropout": 0.1},
    "autoencoder": {"latent": 3, "network": "dense", "hidden": 16, "layers": 1, "components": 2,
                    "loss": "likelihood"},
    "vae": {"latent": 3, "network": "dense", "hidden": 16, "layers": 1, "components": 2},
    "pixel-vae": {"latent": 3, "network": "dense", "hidden": 16, "layers": 1, "components": 2,
                  "flow_layers": 2, "flow_hidden": 8, "maps": 2, "local_channels": 6,
                  "local_layers": 1, "local_first_kernel": 3, "local_head_channels": 12},
    "flow": {"layers": 2, "hidden": 8},
    "dcgan": {"latent": 4, "channels": 4},
}  # fmt: skip
