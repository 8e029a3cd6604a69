"""Word vectors by Word2Vec, from the texts of a source to a registered model."""
