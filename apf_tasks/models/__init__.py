"""What a training starts from: pretrained models, models from scratch, tokenizers, Word2Vec."""
