"""One trial: data, backbones, losses, attacks, training, evaluation. Imports nothing here."""
