"""Loss networks: VGG, where its weights come from, and what photographs measure in them."""
