"""Contrastive pretraining: samples, augmentations, losses and the modes made of them."""
